// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"valise/client"
)

// A marking stands before the text, with what is urgent; other events have none, and
// nothing in a marking steers a terminal.
func TestBanner(t *testing.T) {
	marked := func(kind, marking, precedence string) *client.Event {
		return &client.Event{Kind: kind, Marking: marking, Precedence: precedence, Text: "x"}
	}
	for _, test := range []struct {
		ev   *client.Event
		want string
	}{
		{marked(client.EventMessage, "SECRET", ""), "[SECRET]"},
		{marked(client.EventFile, "SECRET", "flash"), "[FLASH · SECRET]"},
		{marked(client.EventMessage, "", "flash"), ""},
		{marked(client.EventRefused, "SECRET", ""), ""},
		{marked(client.EventMessage, "SEC\x1b[31mRET\nOPEN", ""), "[SEC\ufffd[31mRET OPEN]"},
	} {
		if got := banner(test.ev); got != test.want {
			t.Errorf("%+v: %q, want %q", test.ev, got, test.want)
		}
	}
}

// The policy's colour lies behind the marking, with letters that can be read on it.
func TestPaint(t *testing.T) {
	for color, want := range map[string]string{
		"#FF2B2B": "\x1b[1;37;48;2;255;43;43m[X]\x1b[0m",
		"#33FF00": "\x1b[1;30;48;2;51;255;0m[X]\x1b[0m",
		"yellow":  "\x1b[1;30;48;2;255;255;0m[X]\x1b[0m",
		"":        "\x1b[7m[X]\x1b[0m",
		"#GG0000": "\x1b[7m[X]\x1b[0m",
		"mauve":   "\x1b[7m[X]\x1b[0m",
	} {
		if got := paint(&client.Label{Color: color}, "[X]"); got != want {
			t.Errorf("%q: %q, want %q", color, got, want)
		}
	}
	if got := paint(nil, "[X]"); !strings.Contains(got, "[X]") {
		t.Errorf("no label: %q", got)
	}
}

// "/label" is a command, and whoever means the word writes one stroke more.
func TestLabelCommand(t *testing.T) {
	for text, want := range map[string]struct {
		phrase string
		ok     bool
		sent   string
	}{
		"/label SECRET//EYES ONLY": {"SECRET//EYES ONLY", true, ""},
		"/label":                   {"", true, ""},
		"/labels are good":         {"", false, "/labels are good"},
		"//label is a word":        {"", false, "/label is a word"},
		"/tmp/file":                {"", false, "/tmp/file"},
		"a /label":                 {"", false, "a /label"},
	} {
		phrase, ok := labelCommand(text)
		if phrase != want.phrase || ok != want.ok {
			t.Errorf("%q: %q, %v", text, phrase, ok)
		}
		if sent := strings.TrimPrefix(text, escapedCommand(text)); !ok && sent != want.sent {
			t.Errorf("%q is sent as %q", text, sent)
		}
	}
}

// What was refused, and a label that was changed, is told in words and with its code.
func TestDescribeRefusals(t *testing.T) {
	for _, test := range []struct {
		ev   client.Event
		want []string
	}{
		{client.Event{Kind: client.EventRefused, From: "eve@x.example", Reason: "label_classification"}, []string{"eve@x.example", "REFUSED", "not cleared", "label_classification"}},
		{client.Event{Kind: client.EventRefused, From: "eve@x.example", Reason: "label_sender_restrictive"}, []string{"its sender", "label_sender_restrictive"}},
		{client.Event{Kind: client.EventRelabelled, From: "eve@x.example", Sequence: 7}, []string{"TROUBLE", "message 7", "another label"}},
		{client.Event{Kind: client.EventPolicy, Version: 3}, []string{"version 3", "in force"}},
		{client.Event{Kind: client.EventPolicy, Reason: "bundle_missing"}, []string{"TROUBLE", "bundle_missing", "nothing is sent"}},
		{client.Event{Kind: client.EventPolicy}, []string{"in order again"}},
	} {
		for _, part := range test.want {
			if got := describe(&test.ev); !strings.Contains(got, part) {
				t.Errorf("%+v: %q lacks %q", test.ev, got, part)
			}
		}
	}
}
