// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"sync"
)

// A Subscription is how one connected device learns of its mail. Next has one
// caller at a time.
type Subscription struct {
	box    *Box
	device Device
	wake   chan struct{}

	mu     sync.Mutex
	recent []Entry // guarded by mu; consecutive numbers, committed
	bytes  int     // guarded by mu; payload in recent
	last   uint64  // guarded by mu; the highest number that is committed
	// More may be committed than last says, after a transaction of unknown
	// fate: the store is asked until it has nothing more.
	doubts, settled uint64 // guarded by mu
}

// Subscribe begins to follow a device's mailbox and returns the last number in
// it. A newer subscription of the same device takes the older one's place.
func (b *Box) Subscribe(ctx context.Context, device Device) (*Subscription, uint64, error) {
	s := &Subscription{box: b, device: device, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	b.readers[device] = s
	b.mu.Unlock()
	// Asked for only now, so that nothing falls between the two: what is
	// committed later is offered.
	last, err := b.cfg.Store.Last(ctx, device)
	if err != nil {
		s.Close()
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, last)
	return s, last, nil
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if s.box.readers[s.device] == s {
		delete(s.box.readers, s.device)
	}
}

// Wake receives after mail has been committed for the device.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Next returns mail after a number, from memory where it has just been
// committed, else from the store; nothing if there is none.
func (s *Subscription) Next(ctx context.Context, after uint64, count, bytes int) ([]Entry, error) {
	entries, more := s.fromMemory(after, count, bytes)
	if entries != nil || !more {
		return entries, nil
	}
	s.mu.Lock()
	doubts := s.doubts
	s.mu.Unlock()
	entries, err := s.box.cfg.Store.Read(ctx, s.device, after, count, bytes)
	if err == nil && len(entries) == 0 {
		s.mu.Lock()
		s.settled = doubts
		s.mu.Unlock()
	}
	return entries, err
}

// doubt makes the next looks ask the store.
func (s *Subscription) doubt() {
	s.mu.Lock()
	s.doubts++
	s.mu.Unlock()
	s.nudge()
}

func (s *Subscription) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fromMemory returns what is in memory, or whether the store has more.
func (s *Subscription) fromMemory(after uint64, count, bytes int) (entries []Entry, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.recent) > 0 && s.recent[0].Number <= after {
		s.bytes -= len(s.recent[0].Payload)
		s.recent = s.recent[1:]
	}
	if len(s.recent) == 0 || s.recent[0].Number != after+1 {
		return nil, s.last > after || s.doubts != s.settled
	}
	n, total := 0, 0
	for n < len(s.recent) && n < count {
		total += len(s.recent[n].Payload)
		if n > 0 && total > bytes {
			break
		}
		n++
	}
	out := append([]Entry(nil), s.recent[:n]...)
	for i := range out {
		s.bytes -= len(out[i].Payload)
	}
	s.recent = s.recent[n:]
	return out, true
}

// offer keeps an entry in memory if there is room and no gap before it.
func (s *Subscription) offer(e Entry) {
	s.mu.Lock()
	s.last = max(s.last, e.Number)
	fits := len(s.recent) < recentEntries && s.bytes+len(e.Payload) <= recentBytes
	if n := len(s.recent); n > 0 && s.recent[n-1].Number+1 != e.Number {
		fits = false
	}
	if fits {
		s.recent = append(s.recent, e)
		s.bytes += len(e.Payload)
	}
	s.mu.Unlock()
	s.nudge()
}

// hand gives committed messages to the recipients that are connected here.
func (b *Box) hand(sub *Submission, o Outcome) {
	if o.Verdict == Repeated {
		b.handAgain(sub)
	}
	if o.Verdict != Done {
		return
	}
	for _, p := range o.Placed {
		b.mu.Lock()
		reader := b.readers[p.Device]
		b.mu.Unlock()
		if reader == nil {
			continue
		}
		m := &sub.Messages[p.Message]
		reader.offer(Entry{
			Number: p.Number, Kind: m.Kind, Group: m.Group, Epoch: m.Epoch,
			Sender: sub.Device, Time: sub.Time.UnixMilli(), Payload: m.Payload,
		})
	}
}

// handAgain lets the recipients of a repeated submission look into the store: the
// transaction that did it may have ended with an error, and told nobody.
func (b *Box) handAgain(sub *Submission) {
	for i := range sub.Messages {
		for _, d := range sub.Messages[i].To {
			b.Wake(d)
		}
	}
}
