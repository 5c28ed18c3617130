// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What the driver writes down, one JSON object a line; ./check-soak reads it. Times are
// nanoseconds on one clock that nobody sets.
type (
	// An operation is something that a person asked their agent for.
	operation struct {
		Op           string `json:"op"` // send, add, remove
		By           string `json:"by"`
		Conversation string `json:"conversation"`
		ID           string `json:"id,omitempty"`
		Text         string `json:"text,omitempty"`
		Number       int    `json:"number,omitempty"` // of this person's messages in the conversation
		Who          string `json:"who,omitempty"`
		Call         int64  `json:"call"`
		Return       int64  `json:"return"`
		Outcome      string `json:"outcome"` // acknowledged, refused, unknown
		Error        string `json:"error,omitempty"`
	}

	// An observation says when a line was first seen in a person's messages.jsonl.
	observation struct {
		Cursor string `json:"cursor"`
		Before int64  `json:"before"` // it was not there yet
		After  int64  `json:"after"`  // it was there
	}

	// A faultRecord is one fault that took place.
	faultRecord struct {
		Kind   string `json:"kind"`
		Begin  int64  `json:"begin"`
		End    int64  `json:"end"`
		Detail string `json:"detail,omitempty"`
	}

	// A plan says what a run is about, for the judge.
	plan struct {
		Seed          uint64         `json:"seed"`
		Store         string         `json:"store"`
		Disk          string         `json:"disk"`
		People        []planned      `json:"people"`
		Conversations []conversation `json:"conversations"`
		Kinds         []string       `json:"kinds"` // of faults that must have happened
		Nodes         int            `json:"nodes"`
		Failovers     int            `json:"failovers,omitempty"` // how many there must have been, at least
	}
	planned struct {
		Name    string `json:"name"`
		Address string `json:"address"`
		Device  string `json:"device"`
	}
)

// began is the zero of all times in a run.
var began = time.Now()

func now() int64 { return int64(time.Since(began)) }

// A journal is a file of JSON lines with several writers.
type journal struct {
	mu   sync.Mutex
	file *os.File // guarded by mu
	err  error    // guarded by mu: the first one
	n    int      // guarded by mu
}

func newJournal(dir, name string) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	return &journal{file: f}, err
}

func (j *journal) add(v any) {
	line, err := json.Marshal(v)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	j.err = errors.Join(j.err, err)
	j.n++
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.err, j.file.Close())
}
