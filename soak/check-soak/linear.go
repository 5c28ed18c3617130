// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// porcupinePatience bounds the search for one history's order. A history that takes
// longer counts as failed: it proves nothing.
const porcupinePatience = time.Minute

func (j *judgement) linearizable() {
	for _, name := range slices.Sorted(maps.Keys(j.epochs)) {
		j.find("the epochs of "+name, epochModel, j.epochHistory(name))
	}
	for _, p := range j.People {
		j.find("the mailbox of "+p.Name, mailboxModel, j.mailboxHistory(p))
	}
}

func (j *judgement) find(what string, model porcupine.Model, history []porcupine.Operation) {
	switch porcupine.CheckOperationsTimeout(model, history, porcupinePatience) {
	case porcupine.Ok:
	case porcupine.Illegal:
		j.against(nil, "%s: the history of %d operations is not linearizable", what, len(history))
	case porcupine.Unknown:
		j.against(nil, "%s: no order of %d operations was found in %v", what, len(history), porcupinePatience)
	}
}

// An epochOp used an epoch, or stepped to it. before is the next smaller epoch that
// anything in the history tells of, and so many operations tell of that one.
type epochOp struct {
	epoch, before uint64
	many          int
	steps         bool
}

// An epochState is the present epoch, and how many operations have used it so far.
type epochState struct {
	epoch uint64
	used  int
}

// epochModel is a number that only grows. Whoever steps it makes it larger; whoever
// sends finds it as it is, or larger by steps that nobody asked for (healing). As it only
// grows, an epoch is over for ever when the next one is used: so what uses an epoch
// first must find the one before it, with nothing left that still has to use that.
var epochModel = porcupine.Model{
	Init: func() any { return epochState{} },
	Step: func(state, input, _ any) (bool, any) {
		at, op := state.(epochState), input.(epochOp)
		if !op.steps && at.epoch == op.epoch {
			return true, epochState{op.epoch, at.used + 1}
		}
		return at == epochState{op.before, op.many}, epochState{op.epoch, 1}
	},
}

// epochHistory lists sends with the epoch that took them, and changes with the epoch that
// they led to. Which of several operations of one person caused a change is not told by
// anybody: a change is dated by the person's first and last operation that could have.
func (j *judgement) epochHistory(name string) (history []porcupine.Operation) {
	for _, m := range j.messages {
		if m.Conversation == name && m.epoch > 0 {
			history = append(history, porcupine.Operation{Input: epochOp{epoch: m.epoch}, Call: m.Call, Return: m.until()})
		}
	}
	spans := map[*change]*porcupine.Operation{}
	for _, op := range j.operations {
		if op.Op == "send" || op.Conversation != name || op.Outcome == refused {
			continue
		}
		for _, c := range j.effects(op) {
			s := spans[c]
			if s == nil {
				s = &porcupine.Operation{Input: epochOp{epoch: c.epoch, steps: true}, Call: op.Call, Return: op.until()}
				spans[c] = s
			}
			s.Call, s.Return = min(s.Call, op.Call), max(s.Return, op.until())
		}
	}
	for _, s := range spans {
		history = append(history, *s)
	}
	used := map[uint64]int{}
	for _, o := range history {
		used[o.Input.(epochOp).epoch]++
	}
	known := slices.Sorted(maps.Keys(used))
	for i, o := range history {
		op := o.Input.(epochOp)
		if at, _ := slices.BinarySearch(known, op.epoch); at > 0 {
			op.before, op.many = known[at-1], used[known[at-1]]
		}
		history[i].Input = op
	}
	return history
}

// until is when an operation had taken its effect at the latest.
func (op *operation) until() int64 {
	if op.Outcome == acknowledged {
		return op.Return
	}
	return math.MaxInt64
}

// A mailboxOp puts a message into a mailbox, or takes one out. place is the message's among
// all that came out.
type mailboxOp struct {
	place int
	take  bool
}

// A mailbox has so many messages put in and taken out.
type mailbox struct{ put, taken int }

// mailboxModel is a queue: what is put in first comes out first. As the order in which
// messages came out is known, and each is there once, the queue's state is two counts.
var mailboxModel = porcupine.Model{
	Init: func() any { return mailbox{} },
	Step: func(state, input, _ any) (bool, any) {
		box, op := state.(mailbox), input.(mailboxOp)
		if op.take {
			ok := op.place == box.taken && box.taken < box.put
			box.taken++
			return ok, box
		}
		ok := op.place == box.put
		box.put++
		return ok, box
	},
}

// mailboxHistory lists what others sent to a device, and when it was displayed.
func (j *judgement) mailboxHistory(p *person) (history []porcupine.Operation) {
	place := 0
	for _, ev := range p.events {
		m := j.messages[ev.ID]
		if ev.Kind != "message" || m == nil || m.sender == p {
			continue
		}
		history = append(history,
			porcupine.Operation{ClientId: 1, Input: mailboxOp{place: place}, Call: m.Call, Return: m.until()},
			porcupine.Operation{ClientId: 0, Input: mailboxOp{place: place, take: true}, Call: ev.before, Return: ev.after})
		place++
	}
	slices.SortStableFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return history
}
