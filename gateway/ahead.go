// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"

	"valise/gateway/mailbox"
	"valise/wire"
)

// Deliveries have one order, by their numbers, and acknowledgements are cumulative. So
// that what is urgent need not wait behind a backlog on a thin line, a copy of it is
// sent ahead under its number; in its place it comes again. The device takes the copy if it can,
// and knows the number when it comes to it. See spec/wire.md, Section 4.10.

// ahead is what of one delivery stream was sent ahead. It belongs to run.
type ahead struct {
	by   [mailbox.Flash - mailbox.Immediate + 1]struct{ looked, upTo uint64 }
	open []sent // copies that are not acknowledged in their places
	size int    // of their payloads
	has  map[uint64]bool
}

// newAhead begins with what the device has taken on an earlier connection; nil if it does
// not know of copies.
func newAhead(r *wire.Resume) *ahead {
	if !r.Ahead {
		return nil
	}
	a := &ahead{}
	for _, n := range r.Taken {
		if a.has == nil {
			a.has = make(map[uint64]bool)
		}
		a.has[n] = true
		a.open = append(a.open, sent{number: n})
	}
	return a
}

// settle forgets the copies whose places are acknowledged.
func (a *ahead) settle(acked uint64) {
	a.open = slices.DeleteFunc(a.open, func(s sent) bool {
		if s.number > acked {
			return false
		}
		a.size -= s.size
		delete(a.has, s.number)
		return true
	})
	if len(a.open) == 0 {
		a.open = nil // an idle connection must stay small
	}
}

// room is how many copies of a precedence, of how many bytes, may be sent now.
func (a *ahead) room(precedence uint8) (count, bytes int) {
	count, bytes = wire.MaxAhead, maxAheadBytes
	if precedence < mailbox.Flash {
		count, bytes = count/2, bytes/2
	}
	return count - len(a.open), min(bytes-a.size, coalesce)
}

// endOfWrite is the last number that the next write will have.
func endOfWrite(entries []mailbox.Entry) uint64 {
	bytes := 0
	for i := range entries {
		if bytes += len(entries[i].Payload); bytes >= coalesce {
			return entries[i].Number
		}
	}
	return entries[len(entries)-1].Number
}

// goAhead appends copies of what is urgent and lies beyond a number, flash before
// immediate. The store is asked only when there may be something.
func (d *delivery) goAhead(buffer []byte, beyond uint64) ([]byte, error) {
	if d.ahead == nil {
		return buffer, nil
	}
	d.mu.Lock()
	acked := d.acked
	d.mu.Unlock()
	d.ahead.settle(acked)
	for precedence := mailbox.Flash; precedence >= mailbox.Immediate; precedence-- {
		by := &d.ahead.by[precedence-mailbox.Immediate]
		for turn, upTo := d.mail.Pressing(precedence); by.looked != turn; {
			count, bytes := d.ahead.room(precedence)
			if after := max(by.upTo, beyond); upTo <= after {
				by.looked = turn
			} else if count <= 0 || bytes <= 0 {
				break
			} else if entries, err := d.urgent(precedence, after, count, bytes); err != nil {
				return buffer, err
			} else if len(entries) == 0 {
				by.looked = turn
			} else if buffer, err = d.copies(buffer, entries); err != nil {
				return buffer, err
			} else {
				by.upTo = entries[len(entries)-1].Number
			}
		}
	}
	return buffer, nil
}

// urgent asks the store, as before each write for a device that may have it.
func (d *delivery) urgent(precedence uint8, after uint64, count, bytes int) ([]mailbox.Entry, error) {
	if err := d.s.stillAdmitted(); err != nil {
		return nil, err
	}
	entries, err := d.mail.Urgent(d.s.conn.Context(), precedence, after, count, bytes)
	if err != nil {
		d.s.unavailable("a mailbox could not be read", err)
	}
	return entries, err
}

// copies appends what the device has not taken yet and may have. What it may not have is
// withheld when the drain comes to it.
func (d *delivery) copies(buffer []byte, entries []mailbox.Entry) ([]byte, error) {
	why := d.forbidden(entries, true)
	for i := range entries {
		e := &entries[i]
		if e.Kind != mailbox.Content || d.ahead.has[e.Number] || why[e.Number] != nil {
			continue
		}
		deliver := delivered(e, wire.DeliverAhead)
		at := len(buffer)
		var err error
		if buffer, err = wire.Append(buffer, &deliver); err != nil {
			d.s.unavailable("a stored message cannot be delivered", err)
			return buffer, err
		}
		buffer = d.last.Shorten(buffer, at)
		d.ahead.open = append(d.ahead.open, sent{e.Number, len(e.Payload)})
		d.ahead.size += len(e.Payload)
	}
	return buffer, nil
}

// onlyAhead sends copies while the window is closed for everything else.
func (d *delivery) onlyAhead(beyond uint64) error {
	buffer, err := d.goAhead(nil, beyond)
	if err == nil && len(buffer) > 0 {
		_, err = d.stream.Write(buffer)
	}
	return err
}
