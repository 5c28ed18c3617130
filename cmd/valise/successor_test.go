// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"valise/client"
)

// A successor is told in words: who founded it, with whom it goes on, and why.
func TestDescribeSuccessor(t *testing.T) {
	ev := client.Event{
		Kind: client.EventSuccessor, Name: "crisis cell", From: "alice@interieur.example",
		Members: []client.Member{{Address: "alice@interieur.example"}, {Address: "bob@interieur.example"}},
	}
	for reason, words := range map[string]string{
		"unknown_group": "the gateway had lost the former one", "resync_impossible": "was not valid",
		"rolled_back": "an earlier state", "forked": "at odds", "gateway_restored": "restored from a backup", "": "bob@interieur.example (00000000);",
	} {
		ev.Reason = reason
		got := describe(&ev)
		for _, want := range []string{"[crisis cell]", "goes on in a new group", "founded by alice@interieur.example", "bob@interieur.example", words} {
			if !strings.Contains(got, want) {
				t.Errorf("reason %q: %q does not say %q", reason, got, want)
			}
		}
	}
	ev.Outgoing = true
	if got := describe(&ev); !strings.Contains(got, "founded by you") {
		t.Errorf("to its founder: %q", got)
	}
}
