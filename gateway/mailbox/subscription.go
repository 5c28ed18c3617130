// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Subscription is how one connected device learns of its mail. Next has one
// caller at a time.
type Subscription struct {
	box    *Box
	device Device
	wake   chan struct{}
	woken  atomic.Pointer[func()]
	listed bool // the committer's: it will be woken at the end of the batch

	mu     sync.Mutex
	recent []Entry // guarded by mu; consecutive numbers, committed
	given  []Entry // guarded by mu; what Next returned from recent
	spare  []Entry // guarded by mu; empty memory
	bytes  int     // guarded by mu; payload in recent
	last   uint64  // guarded by mu; the highest number that is committed
	// What is urgent, by precedence: see Pressing.
	pressing [Flash - Immediate + 1]struct{ turn, upTo uint64 } // guarded by mu
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
	for i := range s.pressing { // what there is of it is not known
		s.pressing[i].turn++
		s.pressing[i].upTo = max(s.pressing[i].upTo, last)
	}
	return s, last, nil
}

// Close ends the subscription. Of what came for the device while it was here, other
// gateways were not told: it may read at one of them by now.
func (s *Subscription) Close() {
	s.box.mu.Lock()
	reads := s.box.readers[s.device] == s
	if reads {
		delete(s.box.readers, s.device)
	}
	s.box.mu.Unlock()
	if reads {
		s.box.Tell(News{Mail: []Letter{{Device: s.device}}})
	}
}

// Wake receives after mail has been committed for the device.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// OnWake has f called, by whoever has something to say to Wake and after it, so that
// nobody has to wait there all the time. f must not wait for anything.
func (s *Subscription) OnWake(f func()) { s.woken.Store(&f) }

// Pressing says up to which number there may be content of an urgent precedence. turn is
// another one whenever there may be more of it than before.
func (s *Subscription) Pressing(precedence uint8) (turn, upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pressing[precedence-Immediate]
	return p.turn, p.upTo
}

// press notes that there may be urgent content up to a number.
func (s *Subscription) press(precedence uint8, upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pressing[precedence-Immediate]
	p.turn++
	p.upTo = max(p.upTo, upTo)
}

// Urgent returns content of an urgent precedence after a number, from the store.
func (s *Subscription) Urgent(ctx context.Context, precedence uint8, after uint64, count, bytes int) ([]Entry, error) {
	return s.box.cfg.Store.Urgent(ctx, s.device, precedence, after, count, bytes)
}

func (s *Submission) urgent() bool { return s.Precedence >= Immediate && s.Precedence <= Flash }

// A borrower is a Store that can put payloads into memory of the caller: a drain of
// many mailboxes makes no garbage then.
type borrower interface {
	ReadInto(ctx context.Context, device Device, after uint64, count, bytes int, into []byte) ([]Entry, error)
}

// Next returns mail after a number, from memory where it has just been
// committed, else from the store; nothing if there is none. Payloads may lie in the
// free part of into. The entries are the caller's until it calls Next again.
func (s *Subscription) Next(ctx context.Context, after uint64, count, bytes int, into []byte) ([]Entry, error) {
	entries, stored := s.Recent(after, count, bytes)
	if !stored {
		return entries, nil
	}
	s.mu.Lock()
	doubts := s.doubts
	s.mu.Unlock()
	entries, err := s.box.read(ctx, s.device, after, count, bytes, into)
	if err == nil && len(entries) == 0 {
		s.mu.Lock()
		s.settled = doubts
		s.mu.Unlock()
	}
	return entries, err
}

func (b *Box) read(ctx context.Context, device Device, after uint64, count, bytes int, into []byte) ([]Entry, error) {
	if store, ok := b.cfg.Store.(borrower); ok && into != nil {
		return store.ReadInto(ctx, device, after, count, bytes, into)
	}
	return b.cfg.Store.Read(ctx, device, after, count, bytes)
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
	if f := s.woken.Load(); f != nil {
		(*f)()
	}
}

// Recent is Next without the store: it returns what is in memory, or nothing and
// whether the store has more.
func (s *Subscription) Recent(after uint64, count, bytes int) (entries []Entry, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeBack()
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
	for i := range s.recent[:n] {
		s.bytes -= len(s.recent[i].Payload)
	}
	if n < len(s.recent) {
		s.given, s.recent = s.recent[:n:n], s.recent[n:]
	} else {
		s.given, s.recent = s.recent, s.spare[:0]
		s.spare = nil
	}
	return s.given, false
}

// takeBack forgets what Next has returned before, and keeps its memory if that is
// little: an idle connection must stay small. The caller holds s.mu.
func (s *Subscription) takeBack() {
	clear(s.given)
	if c := cap(s.given); c > cap(s.spare) && c <= keptEntries {
		s.spare = s.given[:0]
	}
	s.given = nil
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
}

// A handing is one message on its way to a reader.
type handing struct {
	reader     *Subscription
	submission *Submission
	placed     Placed
}

// hand gives committed messages to the recipients that are connected here. They are
// woken later, once for all.
func (b *Box) hand(batch []item, outcomes []Outcome) {
	b.handing = b.handing[:0]
	b.mu.Lock()
	for i, it := range batch {
		if outcomes[i].Verdict != Done {
			continue
		}
		b.others.noteGroup(it.submission)
		for _, p := range outcomes[i].Placed {
			reader := b.readers[p.Device]
			if reader != nil {
				b.handing = append(b.handing, handing{reader, it.submission, p})
			}
			b.others.note(Letter{p.Device, p.Number, it.submission.Precedence}, reader != nil)
		}
	}
	b.mu.Unlock()
	for _, h := range b.handing {
		m := &h.submission.Messages[h.placed.Message]
		h.reader.offer(Entry{
			Number: h.placed.Number, Kind: m.Kind, Group: m.Group, Epoch: m.Epoch,
			Sender: h.submission.Device, Time: h.submission.Time.UnixMilli(), Payload: m.Payload,
		})
		if h.submission.urgent() {
			h.reader.press(h.submission.Precedence, h.placed.Number)
		}
		if !h.reader.listed {
			h.reader.listed = true
			b.woken = append(b.woken, h.reader)
		}
	}
	clear(b.handing)
	for i, it := range batch {
		if outcomes[i].Verdict == Repeated {
			b.handAgain(it.submission)
		}
	}
}

// handAgain lets the recipients of a repeated submission look into the store: the
// transaction that did it may have ended with an error, and told nobody.
func (b *Box) handAgain(sub *Submission) {
	b.others.noteGroup(sub)
	for i := range sub.Messages {
		for _, d := range sub.Messages[i].To {
			b.mu.Lock()
			reader := b.readers[d]
			b.mu.Unlock()
			l := Letter{Device: d, Precedence: sub.Precedence}
			if reader != nil {
				reader.heed(l)
			}
			b.others.note(l, reader != nil)
		}
	}
}
