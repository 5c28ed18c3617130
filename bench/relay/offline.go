// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// makeBoxes makes this process's share of mailboxes whose owners are away, and the
// senders that will fill them.
func (ld *loader) makeBoxes(t *task) error {
	ld.boxes = ld.mine(t.Count)
	if err := each(ld.boxes, atOnce, ld.service.mailbox); err != nil {
		return err
	}
	own := ld.mine(t.Senders)
	ld.senders, ld.shares = make([]sender, len(own)), make([][]int, len(own))
	for i, box := range ld.boxes {
		s := i % len(own)
		ld.shares[s] = append(ld.shares[s], box)
	}
	return each(own, atOnce, func(id int) error {
		s, err := ld.service.sender(id, ld.shares[id/ld.of])
		ld.senders[id/ld.of] = s
		return err
	})
}

// store fills the boxes: each sender keeps so many messages unacknowledged.
func (ld *loader) store(t *task) (answer, error) {
	begin := time.Now()
	total := 0
	for i := range ld.senders {
		total += ld.share(i, t.Count)
	}
	list := make([]int, len(ld.senders))
	for i := range list {
		list[i] = i
	}
	before, err1 := ownCPU()
	err := each(list, len(list), func(i int) error { return fill(ld.senders[i], ld.share(i, t.Count), t.InFlight) })
	after, err2 := ownCPU()
	return answer{Count: total, Total: total, Seconds: time.Since(begin).Seconds(), CPU: (after - before).Seconds()}, errors.Join(err, err1, err2)
}

// ownCPU is the processor time that this process has used.
func ownCPU() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// share is how many messages a sender sends if each box gets so many.
func (ld *loader) share(i, each int) int { return each * len(ld.shares[i]) }

// fill sends n messages.
func fill(s sender, n, inFlight int) error {
	var mu sync.Mutex
	cond := sync.NewCond(&mu)
	acked, failed := 0, error(nil)
	go func() {
		for {
			some, err := s.acked()
			mu.Lock()
			acked, failed = acked+some, err
			over := acked >= n || err != nil
			mu.Unlock()
			cond.Signal()
			if over {
				return
			}
		}
	}()
	var b []byte
	for sent := 0; ; {
		mu.Lock()
		for failed == nil && acked < n && (sent == n || sent-acked >= inFlight) {
			cond.Wait()
		}
		room, err, over := min(inFlight-(sent-acked), n-sent), failed, acked >= n
		mu.Unlock()
		if err != nil || over {
			return err
		}
		b = b[:0]
		for range room {
			b = s.add(b, sent)
			sent++
		}
		if err := s.write(b); err != nil {
			return err
		}
	}
}

// connect connects the owners of the boxes; they do not ask for mail yet.
func (ld *loader) connect() (answer, error) {
	begin := time.Now()
	ld.opened = make([]receiver, len(ld.boxes))
	err := each(ld.boxes, atOnce, func(box int) error {
		r, err := ld.service.receiver(box)
		ld.opened[box/ld.of] = r
		return err
	})
	return answer{Count: len(ld.boxes), Seconds: time.Since(begin).Seconds()}, err
}

// drain has everybody ask for mail at once and waits until each has it all.
func (ld *loader) drain(t *task) (answer, error) {
	begin := time.Now()
	var total atomic.Int64
	err := each(ld.boxes, len(ld.boxes), func(box int) error {
		r := ld.opened[box/ld.of]
		late := time.AfterFunc(patience, func() { _ = r.Close() })
		defer late.Stop()
		if err := r.open(); err != nil {
			return err
		}
		for n := 0; n < t.Count; {
			some, err := r.received()
			n += some
			total.Add(int64(some))
			if err != nil {
				return fmt.Errorf("box %d after %d messages: %w", box, n, err)
			}
			if n > t.Count {
				return fmt.Errorf("box %d: %d messages, want %d", box, n, t.Count)
			}
		}
		return nil
	})
	return answer{Count: int(total.Load()), Total: int(total.Load()), Seconds: time.Since(begin).Seconds()}, err
}
