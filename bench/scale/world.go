// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	weak "math/rand/v2"
	"time"

	"valise/gateway/mailbox"
)

const (
	batch        = 64
	members      = 100 // devices for each group
	newcomers    = 32  // that arrive at once
	storedSize   = 256
	row          = 100 // messages of a backlog, as a device has that was away for some days
	comers       = 16  // devices that drain at once
	portion      = 64
	measureSize  = 1024
	portionBytes = 512 << 10
	// journalLetters fill every file that a journal may have, of 64 MiB each.
	journalLetters = 400_000
)

// A world is what a store has been told, so that it can be told more.
type world struct {
	in       *measured
	random   *weak.Rand
	devices  []mailbox.Device
	counters []uint64 // last submission of each device
	last     []uint64 // last number in each mailbox
	acked    []uint64 // what each has acknowledged
	waiting  int      // messages for who is away
	settled  int      // waiting, when settle was called last
	next     int      // who is written to next
	back     int      // who comes back next
	payload  []byte
}

var incarnation = [16]byte{1}

func newWorld(s *measured) *world {
	w := &world{in: s, random: weak.New(weak.NewPCG(1, 2)), payload: make([]byte, measureSize)}
	_, _ = rand.Read(w.payload)
	return w
}

func deviceAt(i int) mailbox.Device {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("scale"), uint64(i)))
}

func groupAt(i int) []byte { return fmt.Appendf(nil, "group %d", i/members) }

// grow has devices arrive until there are n, in groups of a hundred.
func (w *world) grow(ctx context.Context, n int) error {
	from := len(w.devices)
	for i := from; i < n; i++ {
		w.devices, w.counters = append(w.devices, deviceAt(i)), append(w.counters, 0)
		w.last, w.acked = append(w.last, 0), append(w.acked, 0)
	}
	turns, failed := make(chan int), make(chan error, newcomers)
	for range newcomers {
		go func() {
			var err error
			for i := range turns {
				if err == nil {
					err = w.arrive(ctx, i)
				}
			}
			failed <- err
		}()
	}
	for i := from; i < n; i++ {
		turns <- i
	}
	close(turns)
	var err error
	for range newcomers {
		if e := <-failed; e != nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	for i := from; i < n; i += members {
		if err := w.found(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// chain is as large as the certificates of a device.
var chain = [][]byte{make([]byte, 900), make([]byte, 700)}

func (w *world) arrive(ctx context.Context, i int) error {
	_, err := w.in.Arrive(ctx, mailbox.Arrival{
		Device: w.devices[i], Address: fmt.Sprintf("p%d@interieur.example", i), Chain: chain,
		Incarnation: incarnation, Begin: true, Time: time.Now(),
	})
	return err
}

// found has a device found the group of the hundred from it on.
func (w *world) found(ctx context.Context, i int) error {
	sub := w.submission(i)
	sub.Step = &mailbox.Step{
		Group: groupAt(i), Create: true, Info: make([]byte, 1000),
		Records: []mailbox.Record{{Key: "tree", Value: make([]byte, 4000)}}, Joined: w.devices[i:min(i+members, len(w.devices))],
	}
	return w.apply(ctx, []letter{{sub: sub}}, nil)
}

// submission is the next one of a device.
func (w *world) submission(i int) *mailbox.Submission {
	w.counters[i]++
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(nil, w.counters[i]))
	return &mailbox.Submission{Device: w.devices[i], Incarnation: incarnation, Counter: w.counters[i], Hash: hash, Time: time.Now()}
}

// A letter is a submission with one message, and the place of its recipient.
type letter struct {
	sub *mailbox.Submission
	to  int
}

// write is the next submission of a device, with a message for another.
func (w *world) write(from, to int, payload []byte) letter {
	sub := w.submission(from)
	sub.Messages = []mailbox.Message{{Kind: mailbox.Content, Group: groupAt(from), Payload: payload, To: w.devices[to : to+1]}}
	return letter{sub, to}
}

// apply gives a batch to the store. All of it has to be done.
func (w *world) apply(ctx context.Context, letters []letter, acks []mailbox.Ack) error {
	subs := make([]*mailbox.Submission, len(letters))
	for i := range letters {
		subs[i] = letters[i].sub
	}
	outcomes, err := w.in.Apply(ctx, subs, acks)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if o.Verdict != mailbox.Done {
			return fmt.Errorf("a submission was refused: verdict %d", o.Verdict)
		}
		for _, p := range o.Placed {
			w.last[letters[i].to] = p.Number
		}
	}
	return nil
}

// away is how many devices are away: mail waits for them, and for nobody else.
func (w *world) away() int { return len(w.devices) / 2 }

// store has people write to those who are away, one mailbox after the other, until n
// messages wait.
func (w *world) store(ctx context.Context, n int) error {
	for w.waiting < n {
		letters := make([]letter, 0, batch)
		for range min(batch, n-w.waiting) {
			letters = append(letters, w.write(w.random.IntN(len(w.devices)), w.next, w.payload[:storedSize]))
			w.next = (w.next + 1) % min(w.away(), max(1, n/row))
			w.waiting++
		}
		if err := w.apply(ctx, letters, nil); err != nil {
			return err
		}
	}
	return nil
}

// converse has n messages written to people who are there and acknowledge what the batch
// before has brought.
func (w *world) converse(ctx context.Context, n int) error {
	var acks []mailbox.Ack
	for done := 0; done < n; done += batch {
		letters := make([]letter, 0, batch)
		for range batch {
			to := w.away() + w.random.IntN(len(w.devices)-w.away())
			letters = append(letters, w.write(w.random.IntN(len(w.devices)), to, w.payload))
		}
		if err := w.apply(ctx, letters, acks); err != nil {
			return err
		}
		acks = acks[:0]
		for _, l := range letters {
			w.acked[l.to] = w.last[l.to]
			acks = append(acks, mailbox.Ack{Device: w.devices[l.to], Number: w.acked[l.to]})
		}
	}
	return w.apply(ctx, nil, acks)
}

// settle lets the store bring what was stored last to where it stays: a journal does that
// as it is filled with something else, a server at its checkpoints. What is measured then
// has not to pay for it.
func (w *world) settle(ctx context.Context) error {
	if w.in.server != nil {
		return w.in.server.SQL(ctx, "CHECKPOINT")
	}
	if w.waiting == 0 || w.waiting == w.settled {
		return nil
	}
	if err := w.converse(ctx, min(w.waiting-w.settled, journalLetters)); err != nil {
		return err
	}
	w.settled = w.waiting
	return nil
}

// drain has people who were away come back, sixteen at once, until they have fetched n
// messages in the portions of a delivery, and acknowledged each portion.
func (w *world) drain(ctx context.Context, n int) (fetched int, err error) {
	for fetched < n {
		here := make([]int, 0, comers)
		for tried := 0; len(here) < comers && tried < w.away(); tried++ {
			if w.acked[w.back] < w.last[w.back] {
				here = append(here, w.back)
			}
			w.back = (w.back + 1) % w.away()
		}
		if len(here) == 0 {
			return fetched, nil
		}
		for len(here) > 0 {
			var acks []mailbox.Ack
			rest := here[:0]
			for _, i := range here {
				entries, err := w.in.Read(ctx, w.devices[i], w.acked[i], portion, portionBytes)
				if err != nil {
					return fetched, err
				}
				if len(entries) == 0 {
					return fetched, fmt.Errorf("a mailbox of numbers to %d has nothing after %d", w.last[i], w.acked[i])
				}
				fetched += len(entries)
				w.acked[i] = entries[len(entries)-1].Number
				acks = append(acks, mailbox.Ack{Device: w.devices[i], Number: w.acked[i]})
				if w.acked[i] < w.last[i] {
					rest = append(rest, i)
				}
			}
			if err := w.apply(ctx, nil, acks); err != nil {
				return fetched, err
			}
			here = rest
		}
	}
	return fetched, nil
}
