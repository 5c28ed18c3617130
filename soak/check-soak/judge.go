// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A result counts, and keeps what speaks against the run.
type result struct {
	acknowledged, lost, duplicated, disordered, undecryptable int

	cluster  bool  // of databases that fail over
	longest  int64 // how long a message took that was acknowledged, in ns
	faults   int
	kinds    map[string]int // faults of each kind
	evidence []string
}

func (r *result) String() string {
	counts := fmt.Sprintf("%d acknowledged, %d lost, %d duplicated, %d out of order, %d undecryptable, %d faults of %d kinds",
		r.acknowledged, r.lost, r.duplicated, r.disordered, r.undecryptable, r.faults, len(r.kinds))
	name := "soak"
	if r.longest > 0 && r.kinds["rolling upgrade"] > 0 {
		counts += fmt.Sprintf(" (longest pause of a client %.1f s)", time.Duration(r.longest).Seconds())
	}
	if r.cluster {
		name = "soak-ha"
		counts = fmt.Sprintf("%d acknowledged, %d lost, %d duplicated, %d out of order, %d undecryptable, %d failovers (longest pause of a client %.1f s)",
			r.acknowledged, r.lost, r.duplicated, r.disordered, r.undecryptable, r.kinds["failover"], time.Duration(r.longest).Seconds())
	}
	if len(r.evidence) > 0 {
		return name + ": failed: " + counts + ": " + r.evidence[0]
	}
	return name + ": ok: " + counts
}

// add takes in what was found in another run.
func (r *result) add(other *result) {
	r.acknowledged += other.acknowledged
	r.lost += other.lost
	r.duplicated += other.duplicated
	r.disordered += other.disordered
	r.undecryptable += other.undecryptable
	r.faults += other.faults
	r.cluster, r.longest = r.cluster || other.cluster, max(r.longest, other.longest)
	if r.kinds == nil {
		r.kinds = map[string]int{}
	}
	for kind, n := range other.kinds {
		r.kinds[kind] += n
	}
	r.evidence = append(r.evidence, other.evidence...)
}

// against adds evidence; a count goes up with it.
func (r *result) against(count *int, format string, args ...any) {
	if count != nil {
		*count++
	}
	if len(r.evidence) < 100 {
		r.evidence = append(r.evidence, fmt.Sprintf(format, args...))
	}
}

// A message is what was asked to be sent, with what is known about its fate.
type message struct {
	*operation
	sender     *person
	epoch      uint64    // by the sender's device; 0: the device does not show it
	recipients []*person // devices that were in that epoch, but the sender's
}

// A judgement is a run under examination.
type judgement struct {
	*run
	*result
	messages map[string]*message // by id
	byDevice map[string]*person
	epochs   map[string]map[uint64]*change // by conversation
}

func (r *run) judge() *result {
	j := &judgement{
		run: r, result: new(result), messages: map[string]*message{}, byDevice: map[string]*person{}, epochs: map[string]map[uint64]*change{},
	}
	for _, p := range r.People {
		j.byDevice[p.Device] = p
	}
	j.collect()
	j.changes()
	j.displays()
	j.losses()
	j.orders()
	j.linearizable()
	j.harm()
	if j.acknowledged == 0 {
		j.against(nil, "nothing was acknowledged")
	}
	return j.result
}

// collect takes the operations.
func (j *judgement) collect() {
	byName := map[string]*person{}
	for _, p := range j.People {
		byName[p.Name] = p
	}
	for _, op := range j.operations {
		if op.Op != "send" {
			continue
		}
		sender := byName[op.By]
		if sender == nil || op.ID == "" || j.messages[op.ID] != nil {
			j.against(nil, "operation %+v: no such sender, or the id was given before", *op)
			continue
		}
		j.messages[op.ID] = &message{operation: op, sender: sender}
		if op.Outcome == acknowledged {
			j.acknowledged++
			j.longest = max(j.longest, op.Return-op.Call)
		}
	}
}

// displays looks at each line that each device has shown.
func (j *judgement) displays() {
	for _, p := range j.People {
		shown := map[string]bool{}
		for _, ev := range p.events {
			switch ev.Kind {
			case "message":
				j.display(p, ev, shown)
			case "joined", "added", "removed", "held":
			case "failed": // its sender was told in the same breath that it was not taken
				if m := j.messages[ev.ID]; m == nil || m.sender != p || m.Outcome == acknowledged {
					j.against(&j.lost, "%s at %s: %s in %s was given up after it had been acknowledged: %s", p.Name, ev.Cursor, ev.ID, ev.Name, ev.Reason)
				}
			case "left":
				if ev.Reason != "removed" {
					j.against(nil, "%s fell out of %s: %s", p.Name, ev.Name, ev.Reason)
				}
			case "refused", "lost", "other", "file":
				j.against(&j.undecryptable, "%s at %s: %s %s of %s: %s", p.Name, ev.Cursor, ev.Kind, ev.ID, ev.From, ev.Reason)
			default: // successor, resynced, record, unrecorded
				j.against(nil, "%s at %s: %s in %s: %s", p.Name, ev.Cursor, ev.Kind, ev.Name, ev.Reason)
			}
		}
	}
}

func (j *judgement) display(p *person, ev *event, shown map[string]bool) {
	m := j.messages[ev.ID]
	switch {
	case m == nil:
		j.against(nil, "%s displays %s, %.60q of %s, which nobody sent", p.Name, ev.ID, ev.Text, ev.From)
		return
	case ev.Text != m.Text || ev.From != m.sender.Address || ev.Device != m.sender.Device || ev.Name != m.Conversation || ev.Outgoing != (p == m.sender):
		j.against(nil, "%s displays %s altered: %.60q of %s in %s", p.Name, ev.ID, ev.Text, ev.From, ev.Name)
	case m.Outcome == refused:
		j.against(nil, "%s displays %s, %.60q, which was refused", p.Name, ev.ID, ev.Text)
	case shown[ev.ID]:
		j.against(&j.duplicated, "%s displays %s, %.60q, again at %s", p.Name, ev.ID, ev.Text, ev.Cursor)
	}
	shown[ev.ID] = true
	if p == m.sender {
		m.epoch = ev.Epoch
	}
}

// losses looks for what was acknowledged and is not displayed where it must be, and for
// what is displayed where it must not be.
func (j *judgement) losses() {
	displayed := map[*person]map[string]bool{}
	for _, p := range j.People {
		displayed[p] = map[string]bool{}
		for _, ev := range p.events {
			if ev.Kind == "message" {
				displayed[p][ev.ID] = true
			}
		}
	}
	for _, m := range j.sorted() {
		if m.Outcome == acknowledged && m.epoch == 0 {
			j.against(&j.lost, "%s was told that %s, %.60q, is sent, and the own device does not show it", m.By, m.ID, m.Text)
			continue
		}
		inside := j.members(m.Conversation, m.epoch)
		for _, p := range j.People {
			switch {
			case p == m.sender:
			case inside[p.Device]:
				m.recipients = append(m.recipients, p)
				if m.epoch > 0 && !displayed[p][m.ID] {
					j.against(&j.lost, "%s never displayed %s, %.60q, sent in epoch %d of %s", p.Name, m.ID, m.Text, m.epoch, m.Conversation)
				}
			case displayed[p][m.ID] && m.epoch > 0:
				j.against(nil, "%s displays %s, %.60q, of epoch %d of %s without having been a member", p.Name, m.ID, m.Text, m.epoch, m.Conversation)
			}
		}
	}
}

// sorted lists the messages by their calls.
func (j *judgement) sorted() []*message {
	return slices.SortedFunc(maps.Values(j.messages), func(a, b *message) int {
		if a.Call != b.Call {
			return int(min(max(a.Call-b.Call, -1), 1))
		}
		return a.Number - b.Number
	})
}

// orders compares each device's display with the order in which each sender sent.
func (j *judgement) orders() {
	for _, p := range j.People {
		last := map[[2]string]*message{}
		for _, ev := range p.events {
			m := j.messages[ev.ID]
			if ev.Kind != "message" || m == nil {
				continue
			}
			lane := [2]string{m.By, m.Conversation}
			if before := last[lane]; before != nil && before.Number > m.Number {
				j.against(&j.disordered, "%s displays %.60q after %.60q", p.Name, m.Text, before.Text)
			}
			last[lane] = m
		}
	}
}

// harm counts faults; each kind in the plan must have happened.
func (j *judgement) harm() {
	seen := map[string]int{}
	for _, f := range j.run.faults {
		seen[f.Kind]++
	}
	j.kinds, j.result.faults = seen, len(j.run.faults)
	j.cluster = j.Failovers > 0
	if seen["failover"] < j.Failovers {
		j.against(nil, "%d failovers took place, and there were to be %d", seen["failover"], j.Failovers)
	}
	for _, kind := range j.Kinds {
		if seen[kind] == 0 {
			j.against(nil, "no fault of the kind %q took place", kind)
		}
	}
}
