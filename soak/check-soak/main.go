// SPDX-License-Identifier: Apache-2.0

// Command check-soak judges what a soak has written down. It shares no code with Valise
// and asks none of its programs.
//
//	check-soak FOLDER…
//
// Several runs are judged one by one, and what was found is added up. A folder holds what driver and clients wrote, one JSON object a line:
//
//   - plan.json: people, conversations, and the kinds of faults that must have happened
//   - operations.jsonl: what people asked for (send, add, remove), when it was called and
//     when it returned, and whether it was acknowledged or refused or that is unknown
//   - faults.jsonl: the faults that took place
//   - NAME/messages.jsonl: what NAME's device displayed, in its order, as `valise receive
//     --follow --sent --append` writes it
//   - NAME.observed.jsonl: when each of those lines was first seen
//
// It checks, and counts, that
//
//   - whatever was acknowledged is displayed by each device that was a member in the
//     message's epoch (else it is lost), once (duplicated), with the text that was
//     written; that nobody else displays it; and that nothing is displayed that nobody sent
//   - a sender's messages of one conversation appear in the order in which they were
//     sent (out of order)
//   - no device reports a message that it could not read or obtain (undecryptable)
//   - all devices tell the same of each epoch: who changed what
//   - the history of each conversation's epochs is linearizable: there is an order of all
//     sends and changes, each somewhere between call and return, in which epochs only grow
//   - the history of each device's mailbox is linearizable as a first-in-first-out queue:
//     what was acknowledged before something else was sent is displayed before it
//   - no conversation had to go on in a successor, no device had to begin anew: the
//     gateway never went back behind what it had acknowledged
//   - each kind of fault in the plan took place, and as many failovers as it wants
//
// It prints one line,
//
//	soak: ok: A acknowledged, 0 lost, 0 duplicated, 0 out of order, 0 undecryptable, F faults of K kinds
//
// or, where the plan wants a cluster of databases to fail over,
//
//	soak-ha: ok: A acknowledged, 0 lost, 0 duplicated, 0 out of order, 0 undecryptable, F failovers (longest pause of a client S s)
//
// with the longest time that a message was on its way to its acknowledgement;
// or "soak: failed: ", the same counts, and the first evidence, and ends with status 1.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: check-soak FOLDER…")
		os.Exit(2)
	}
	stop := make(chan struct{})
	go watchMemory(maxHeap, stop, func(bytes uint64) {
		fmt.Printf("soak: failed: no order of a history was found in %d MB of memory\n", bytes>>20)
		os.Exit(1)
	})
	r := new(result)
	for _, dir := range os.Args[1:] {
		run, err := read(dir)
		if err != nil {
			fmt.Println("soak: failed: what was written down cannot be read:", err)
			os.Exit(1)
		}
		r.add(run.judge())
	}
	close(stop)
	fmt.Println(r)
	for _, e := range r.evidence {
		fmt.Fprintln(os.Stderr, "check-soak:", e)
	}
	if len(r.evidence) > 0 {
		os.Exit(1)
	}
}
