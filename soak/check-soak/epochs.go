// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A change is what a commit did to a conversation, as devices tell it.
type change struct {
	epoch          uint64 // that it led to
	by             string // device
	added, removed []string
	teller         *person
	told           map[*person]bool
}

func (c *change) String() string {
	return fmt.Sprintf("by %.8s, added %v, removed %v", c.by, c.added, c.removed)
}

// changes puts together what the devices tell of each epoch; they must agree.
func (j *judgement) changes() {
	for _, p := range j.People {
		mine := map[string]map[uint64]*change{}
		for _, ev := range p.events {
			if ev.Kind != "added" && ev.Kind != "removed" {
				continue
			}
			if mine[ev.Name] == nil {
				mine[ev.Name] = map[uint64]*change{}
			}
			c := mine[ev.Name][ev.Epoch]
			if c == nil {
				c = &change{epoch: ev.Epoch, by: ev.Device, teller: p, told: map[*person]bool{p: true}}
				mine[ev.Name][ev.Epoch] = c
			}
			for _, m := range ev.Members {
				if ev.Kind == "added" {
					c.added = append(c.added, m.Device)
				} else {
					c.removed = append(c.removed, m.Device)
				}
			}
			slices.Sort(c.added)
			slices.Sort(c.removed)
		}
		for name, list := range mine {
			j.agree(p, name, list)
		}
	}
	for name, list := range j.epochs {
		j.complete(name, list)
	}
}

func (j *judgement) agree(p *person, name string, list map[uint64]*change) {
	if j.epochs[name] == nil {
		j.epochs[name] = map[uint64]*change{}
	}
	for epoch, c := range list {
		other := j.epochs[name][epoch]
		if other == nil {
			j.epochs[name][epoch] = c
			continue
		}
		other.told[p] = true
		if other.String() != c.String() {
			j.against(nil, "epoch %d of %s is, to %s, a change %v, and to %s one %v", epoch, name, other.teller.Name, other, p.Name, c)
		}
	}
}

// complete demands that each member was told of each change, and that each change fits
// the one before.
func (j *judgement) complete(name string, list map[uint64]*change) {
	inside := map[string]bool{}
	for _, epoch := range slices.Sorted(maps.Keys(list)) {
		c := list[epoch]
		if len(inside) == 0 {
			inside[c.by] = true // who founded it
		}
		if !inside[c.by] {
			j.against(nil, "epoch %d of %s: %v, who was not a member", epoch, name, c)
		}
		for device := range inside {
			p := j.byDevice[device]
			if p != nil && !c.told[p] && !slices.Contains(c.removed, device) {
				j.against(&j.lost, "%s was not told of epoch %d of %s: %v", p.Name, epoch, name, c)
			}
		}
		for _, device := range c.added {
			if inside[device] {
				j.against(nil, "epoch %d of %s adds %.8s twice", epoch, name, device)
			}
			inside[device] = true
		}
		for _, device := range c.removed {
			if !inside[device] {
				j.against(nil, "epoch %d of %s removes %.8s, who was not in it", epoch, name, device)
			}
			delete(inside, device)
		}
	}
}

// members are the devices in an epoch of a conversation.
func (j *judgement) members(name string, epoch uint64) map[string]bool {
	inside := map[string]bool{}
	for _, at := range slices.Sorted(maps.Keys(j.epochs[name])) {
		if at > epoch {
			break
		}
		c := j.epochs[name][at]
		if len(inside) == 0 {
			inside[c.by] = true
		}
		for _, device := range c.added {
			inside[device] = true
		}
		for _, device := range c.removed {
			delete(inside, device)
		}
	}
	return inside
}

// effects lists the changes that an operation may have caused: those by its person with
// its effect.
func (j *judgement) effects(op *operation) (found []*change) {
	var who, by string
	for _, p := range j.People {
		if p.Address == op.Who {
			who = p.Device
		}
		if p.Name == op.By {
			by = p.Device
		}
	}
	for _, c := range j.epochs[op.Conversation] {
		list := c.added
		if op.Op == "remove" {
			list = c.removed
		}
		if c.by == by && strings.Join(list, "") == who {
			found = append(found, c)
		}
	}
	return found
}
