// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"valise/internal/stage"
	"valise/internal/wan"
)

// A person is an official behind a relay, with what they see written down.
type person struct {
	*stage.Official
	world  *world
	dir    string // where `receive` writes
	device string
	paths

	mu       sync.Mutex     // held while agent or receiver are interfered with
	receiver *stage.Process // guarded by mu
	numbers  sync.Map       // conversation -> *atomic.Int64: messages drafted so far

	weatherMu sync.Mutex
	weather   wan.Weather // guarded by weatherMu, but for its Cut, which follows from these:
	isolated  bool        // guarded by weatherMu
	closed    bool        // guarded by weatherMu; UDP alone

	sent, seen atomic.Int64
	killNext   atomic.Int64 // nanoseconds after which the next send is killed; 0: it is not
	killed     atomic.Int64 // sends that were
	refused    atomic.Int64 // sends that the gateway refused for good
}

// follow starts `valise receive`, which writes down each event once, however often it or
// the agent is killed.
func (p *person) follow() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.receiver, err = p.ReceiveAll(p.dir)
	return err
}

// unlock types the PIN until the agent has taken it.
func (p *person) unlock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var last error
	_, err := stage.Poll(ctx, p.Name+"'s agent to be unlocked", func() (struct{}, bool, error) {
		last = p.Unlock(ctx)
		return struct{}{}, last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return nil
}

// draft makes this person's next message of a conversation.
func (p *person) draft(conversation string, rng *rand.Rand) *operation {
	counter, _ := p.numbers.LoadOrStore(conversation, new(atomic.Int64))
	n := counter.(*atomic.Int64).Add(1)
	return &operation{
		Op: "send", By: p.Name, Conversation: conversation, Number: int(n), Call: now(),
		ID:   fmt.Sprintf("%016x%016x", rng.Uint64(), rng.Uint64()),
		Text: fmt.Sprintf("%s in %s, number %d, %x", p.Name, conversation, n, rng.Uint64()),
	}
}

// write sends message after message into a conversation until stop is closed. A send that
// breaks off is repeated under its id until the agent says what became of it.
func (p *person) write(ctx context.Context, conversation string, rng *rand.Rand, stop <-chan struct{}) {
	for ctx.Err() == nil {
		select {
		case <-stop:
			return
		default:
		}
		op := p.draft(conversation, rng)
		p.send(ctx, op)
		if op.Outcome == "refused" {
			rest(ctx, 500*time.Millisecond) // not a member now
		}
		rest(ctx, time.Duration(rng.IntN(300))*time.Millisecond)
	}
}

// attemptLimit bounds one command: its connection may be cut for long.
const attemptLimit = 40 * time.Second

func (p *person) send(ctx context.Context, op *operation) {
	op.Outcome = "unknown"
	for first := true; ctx.Err() == nil; first = false {
		limit, kill := attemptLimit, time.Duration(p.killNext.Swap(0))
		if kill > 0 {
			limit = kill
		}
		attempt, cancel := context.WithTimeout(ctx, limit)
		_, err := p.Run(attempt, "send", "--id", op.ID, "-c", op.Conversation, op.Text)
		if kill > 0 && err != nil && attempt.Err() != nil {
			p.killed.Add(1)
		}
		cancel()
		if err == nil {
			op.Outcome, op.Error = "acknowledged", ""
			p.sent.Add(1)
			break
		}
		op.Error = err.Error()
		if notMember(err) {
			// Only the first attempt proves that nothing left: a later one is refused
			// before the agent looks whether it has sent the message already.
			if first {
				op.Outcome = "refused"
			}
			break
		}
		if strings.Contains(op.Error, "refused") { // the gateway's lasting no, which the agent remembers
			op.Outcome = "refused"
			p.refused.Add(1)
			break
		}
		rest(ctx, 100*time.Millisecond)
	}
	op.Return = now()
	p.world.ops.add(op)
}

func notMember(err error) bool {
	text := err.Error()
	return strings.Contains(text, "no longer a member") || strings.Contains(text, "no conversation ")
}

// host brings the guest in and puts them out, by turns of its own, so that two hosts get in
// each other's way.
func (p *person) host(ctx context.Context, c conversation, rng *rand.Rand, stop <-chan struct{}) {
	guest := p.world.people[c.Guest].Address
	for ctx.Err() == nil {
		rest(ctx, time.Duration(1000+rng.IntN(4000))*time.Millisecond)
		select {
		case <-stop:
			return
		default:
		}
		op := &operation{Op: "add", By: p.Name, Conversation: c.Name, Who: guest, Call: now(), Outcome: "acknowledged"}
		if rng.IntN(2) == 0 {
			op.Op = "remove"
		}
		attempt, cancel := context.WithTimeout(ctx, attemptLimit)
		_, err := p.Run(attempt, op.Op, c.Name, guest)
		cancel()
		if err != nil {
			op.Outcome, op.Error = "unknown", err.Error()
			if strings.Contains(op.Error, "no such member") {
				op.Outcome = "refused"
			}
		}
		op.Return = now()
		p.world.ops.add(op)
	}
}

// observe notes when each line came into this person's messages.jsonl.
func (p *person) observe(ctx context.Context) error {
	out, err := newJournal(p.world.logs, p.Name+".observed.jsonl")
	if err != nil {
		return err
	}
	before, from := int64(0), int64(0)
	for {
		after := now() // what is read now was written before the next look
		lines, err := linesFrom(filepath.Join(p.dir, "messages.jsonl"), from)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(lines) {
			var ev struct{ Cursor string }
			if err := json.Unmarshal(line, &ev); err != nil {
				return fmt.Errorf("%s: %w: %s", p.Name, err, line)
			}
			out.add(observation{Cursor: ev.Cursor, Before: before, After: now()})
			p.seen.Add(1)
		}
		from += int64(len(lines))
		before = after
		if ctx.Err() != nil {
			return out.close()
		}
		rest(ctx, 20*time.Millisecond)
	}
}

// linesFrom reads the whole lines of a file behind an offset.
func linesFrom(path string, from int64) ([]byte, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= from {
		return nil, err
	}
	data := make([]byte, info.Size()-from)
	n, err := f.ReadAt(data, from)
	data = data[:n]
	return data[:bytes.LastIndexByte(data, '\n')+1], err
}
