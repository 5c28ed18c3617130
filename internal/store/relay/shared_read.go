// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"fmt"
	"math"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// Read implements mailbox.Store.
func (s *Shared) Read(ctx context.Context, device mailbox.Device, after uint64, count, bytes int) ([]mailbox.Entry, error) {
	return s.ReadInto(ctx, device, after, count, bytes, nil)
}

// ReadInto is Read that puts payloads into the free part of into while they fit. One
// statement is of one state without a transaction around it, and costs one journey.
func (s *Shared) ReadInto(ctx context.Context, device mailbox.Device, after uint64, count, bytes int, into []byte) (entries []mailbox.Entry, err error) {
	err = s.db.Look(ctx, func(rows store.Rows) error {
		r := reading{into: into, bytes: bytes}
		for rows.Next() {
			if more, err := r.take(rows.Scan); err != nil || !more {
				entries = r.entries
				return err
			}
		}
		entries = r.entries
		return rows.Err()
	}, selectMail, device[:], int64(after), int64(math.MaxInt64), count)
	if err != nil {
		return nil, fmt.Errorf("relay store: read a mailbox: %w", err)
	}
	return entries, nil
}

// reading collects the rows of selectMail.
type reading struct {
	entries      []mailbox.Entry
	into         []byte
	bytes, total int
}

// take takes one row; what it keeps of it are copies.
func (r *reading) take(scan func(...any) error) (more bool, err error) {
	var e mailbox.Entry
	var group, sender, payload store.Borrowed
	if err := scan(&e.Number, &e.Kind, &group, &e.Epoch, &sender, &e.Time, &payload); err != nil {
		return false, err
	}
	if r.total += len(payload); r.total > r.bytes && len(r.entries) > 0 {
		return false, nil
	}
	copy(e.Sender[:], sender)
	if n := len(r.entries); n > 0 && bytes.Equal(r.entries[n-1].Group, group) {
		e.Group = r.entries[n-1].Group
	} else {
		e.Group = bytes.Clone(group)
	}
	if n := len(r.into); cap(r.into)-n >= len(payload) {
		r.into = append(r.into, payload...)
		e.Payload = r.into[n:len(r.into):len(r.into)]
	} else {
		e.Payload = append([]byte{}, payload...)
	}
	r.entries = append(r.entries, e)
	return true, nil
}
