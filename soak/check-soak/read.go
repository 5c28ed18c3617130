// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Outcomes of operations.
const (
	acknowledged = "acknowledged"
	refused      = "refused"
	unknown      = "unknown"
)

type operation struct {
	Op, By, Conversation, ID, Text, Who, Outcome string
	Number                                       int
	Call, Return                                 int64
}

type event struct {
	Cursor, Kind, Conversation, Name, ID, From, Device, Text, Reason string
	Outgoing                                                         bool
	Sequence, Epoch                                                  uint64
	Members                                                          []member

	before, after int64 // when it was first seen
}

type member struct{ Address, Device string }

type fault struct{ Kind string }

type person struct {
	Name, Address, Device string

	events []*event
}

type plan struct {
	People        []*person
	Conversations []struct {
		Name    string
		Members []string
	}
	Kinds []string

	Failovers int // how many a cluster must have had, at least; 0: there is none
}

// A run is all that was written down.
type run struct {
	plan
	operations []*operation
	faults     []fault
}

func read(dir string) (*run, error) {
	r := new(run)
	data, err := os.ReadFile(filepath.Join(dir, "plan.json"))
	if err == nil {
		err = json.Unmarshal(data, &r.plan)
	}
	if err != nil {
		return nil, err
	}
	if err := lines(filepath.Join(dir, "operations.jsonl"), &r.operations); err != nil {
		return nil, err
	}
	if err := lines(filepath.Join(dir, "faults.jsonl"), &r.faults); err != nil {
		return nil, err
	}
	for _, p := range r.People {
		if err := p.read(dir); err != nil {
			return nil, err
		}
	}
	return r, r.check()
}

func (p *person) read(dir string) error {
	if err := lines(filepath.Join(dir, p.Name, "messages.jsonl"), &p.events); err != nil {
		return err
	}
	var seen []struct {
		Cursor        string
		Before, After int64
	}
	if err := lines(filepath.Join(dir, p.Name+".observed.jsonl"), &seen); err != nil {
		return err
	}
	for i, ev := range p.events {
		if i >= len(seen) || seen[i].Cursor != ev.Cursor {
			return fmt.Errorf("%s: line %d of messages.jsonl was not observed, or changed afterwards", p.Name, i+1)
		}
		ev.before, ev.after = seen[i].Before, seen[i].After
	}
	if len(seen) != len(p.events) {
		return fmt.Errorf("%s: %d lines of messages.jsonl have vanished", p.Name, len(seen)-len(p.events))
	}
	return nil
}

// check refuses a record that proves nothing.
func (r *run) check() error {
	if len(r.People) < 2 || len(r.Conversations) == 0 || len(r.Kinds) == 0 {
		return fmt.Errorf("the plan has %d people, %d conversations and %d kinds of faults", len(r.People), len(r.Conversations), len(r.Kinds))
	}
	for i, op := range r.operations {
		if op.Return < op.Call || op.Outcome != acknowledged && op.Outcome != refused && op.Outcome != unknown ||
			op.Op != "send" && op.Op != "add" && op.Op != "remove" {
			return fmt.Errorf("operation %d makes no sense: %+v", i+1, *op)
		}
	}
	return nil
}

func lines[T any](path string, out *[]T) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 16<<20)
	for n := 1; s.Scan(); n++ {
		var v T
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		*out = append(*out, v)
	}
	return s.Err()
}
