// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"time"

	"valise/wire"
)

// A Span is what an entry of kind Expired or Withheld says: it stands for the numbers from First
// up to its own, the oldest of which was stored at Since.
type Span struct {
	First uint64
	Since int64 // milliseconds since 1970
}

// Payload encodes s for its entry.
func (s Span) Payload() ([]byte, error) {
	return (&wire.ExpiredMail{First: s.First, Since: uint64(s.Since)}).Marshal()
}

// ParseSpan reads the payload of an entry of kind Expired.
func ParseSpan(payload []byte) (Span, error) {
	m, err := wire.ParseExpiredMail(payload)
	if err != nil {
		return Span{}, err
	}
	return Span{First: m.First, Since: int64(m.Since)}, nil
}

// MaxUnfetched is how many submissions one entry of kind Undelivered names.
const MaxUnfetched = wire.MaxUndelivered

// Unfetched is the payload of an entry of kind Undelivered or Forbidden: submissions of one
// incarnation, rising, at most MaxUnfetched.
func Unfetched(incarnation [16]byte, counters []uint64) ([]byte, error) {
	return (&wire.UndeliveredMail{Incarnation: incarnation, Counters: counters}).Marshal()
}

// RestoredTo is the payload of an entry of kind Restored: the state that the store was
// put back into is that of a backup of that time, and the mailbox's numbers from the
// first one on have been forgotten.
func RestoredTo(first uint64, since time.Time) ([]byte, error) {
	return (&wire.RestoredMail{First: first, Since: uint64(since.UnixMilli())}).Marshal()
}

// Expire has the store take out what nobody fetched in time, and wakes those who are
// told so. It returns fewer than limit messages when nothing more is due.
func (b *Box) Expire(ctx context.Context, before time.Time, limit int) ([]Loss, error) {
	losses, err := b.cfg.Store.Expire(ctx, before, limit)
	for i := range losses {
		b.Wake(losses[i].Recipient)
		b.Wake(losses[i].Sender)
	}
	return losses, err
}

// Withhold has the store take out what a device may not have, and wakes the senders. The
// device's own reader is the one who asks.
func (b *Box) Withhold(ctx context.Context, device Device, numbers []uint64) ([]Loss, error) {
	losses, err := b.cfg.Store.Withhold(ctx, device, numbers)
	b.Wake(device)
	for i := range losses {
		b.Wake(losses[i].Sender)
	}
	return losses, err
}

// Wake lets a device look into the store, wherever it is connected.
func (b *Box) Wake(d Device) {
	b.mu.Lock()
	reader := b.readers[d]
	b.mu.Unlock()
	if reader != nil {
		reader.doubt()
	}
	if reader == nil || b.Deaf() != nil {
		b.Tell(News{Mail: []Letter{{Device: d}}})
	}
}
