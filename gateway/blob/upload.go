// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"valise/gateway/mailbox"
)

// An Upload names a file that is about to arrive.
type Upload struct {
	ID    [32]byte // SHA-256 of the whole
	Group []byte
	Size  uint64
	Owner mailbox.Device
}

// A Writer receives one file. It belongs to one goroutine.
type Writer struct {
	s       *Store
	ctx     context.Context
	up      Upload
	blob    mailbox.Blob
	done    bool // complete: there is nothing to receive
	draft   Draft
	claimed bool
	hash    hash.Hash
	offset  uint64
	resumed bool
	until   time.Time // of the claim, less some slack; by the clock that nobody sets
	again   time.Time // when the claim is to be renewed
}

// Put begins or resumes an upload. The caller calls Close in any case.
func (s *Store) Put(ctx context.Context, up Upload) (*Writer, error) {
	if up.Size == 0 || up.Size > MaxSize {
		return nil, ErrTooLarge
	}
	name := nameOf(up.Group, up.ID)
	if !s.take(name) {
		return nil, ErrBusy
	}
	w := &Writer{s: s, ctx: ctx, up: up, blob: mailbox.Blob{Name: name}, hash: sha256.New()}
	if err := w.begin(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Writer) begin() error {
	if err := w.record(); err != nil {
		return err
	}
	if w.blob.Complete {
		has, err := w.s.cfg.Place.Has(w.ctx, placeOf(&w.blob), w.blob.Size)
		if err != nil {
			return err
		}
		if has {
			// Brought again it stays as long as a new one: its time may be nearly over.
			w.done, w.offset = true, w.blob.Size
			return w.refused(w.s.cfg.Store.FinishBlob(w.ctx, w.blob, w.s.holder, w.expires()))
		}
		// Record and bytes have come apart: the file is received again.
		if err := w.drop(w.ctx); err != nil {
			return err
		}
		if err := w.record(); err != nil {
			return err
		}
	}
	return w.resume()
}

// record announces the file, and claims it.
func (w *Writer) record() error {
	now := w.s.cfg.Now()
	claim := w.s.claim()
	w.renewed()
	b, err := w.s.cfg.Store.BeginBlob(w.ctx, mailbox.Blob{
		ID: w.up.ID, Group: w.up.Group, Size: w.up.Size, Owner: w.up.Owner, Name: w.blob.Name,
		Created: now.Unix(), Expires: now.Add(partialExpiry).Unix(),
	}, w.s.limits(w.ctx), claim)
	if err != nil {
		return w.refused(err)
	}
	w.blob, w.claimed = b, !b.Complete
	if b.Size != w.up.Size {
		return ErrTooLarge
	}
	return nil
}

// refused translates the store's refusals.
func (w *Writer) refused(err error) error {
	for from, to := range map[error]error{
		mailbox.ErrNotFound: ErrNotFound, mailbox.ErrQuota: ErrQuota, mailbox.ErrRoom: ErrRoom, mailbox.ErrClaimed: ErrBusy,
	} {
		if errors.Is(err, from) {
			return to
		}
	}
	return err
}

// resume goes on with the partial file, and with its hash as it stood there.
func (w *Writer) resume() error {
	p := &progress{}
	have := w.blob.Have
	if have > 0 {
		var err error
		if p, err = parseProgress(w.blob.Progress); err == nil {
			err = w.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(p.hash)
		}
		if err != nil { // another version's: from the beginning
			p, have = &progress{}, 0
		}
	}
	draft, err := w.s.cfg.Place.Draft(w.ctx, placeOf(&w.blob), w.up.Size, have, p.place)
	if err != nil {
		return err
	}
	w.draft, w.offset = draft, draft.Offset()
	if w.offset != have || have == 0 {
		if w.offset != 0 {
			return fmt.Errorf("blob: a partial file of %d bytes where there are %d", w.offset, have)
		}
		w.hash.Reset()
		w.blob.Have = 0
	}
	w.resumed = w.offset > 0
	return nil
}

// Offset is where the sender goes on; the size when nothing is missing.
func (w *Writer) Offset() uint64 { return w.offset }

// Append adds bytes at the end.
func (w *Writer) Append(data []byte) error {
	if w.done || uint64(len(data)) > w.up.Size-w.offset {
		return ErrLength
	}
	for len(data) > 0 {
		if !time.Now().Before(w.until) {
			return ErrBusy // somebody else may have it by now
		}
		part := data[:min(uint64(len(data)), Piece-w.offset%Piece)]
		n, err := w.draft.Write(part)
		w.hash.Write(part[:n])
		w.offset += uint64(n)
		if err != nil {
			return err
		}
		data = data[n:]
		if w.offset%Piece == 0 || time.Now().After(w.again) {
			if err := w.save(w.ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// save persists what has arrived, notes it, and renews the claim.
func (w *Writer) save(ctx context.Context) error {
	have, place, err := w.draft.Save(ctx)
	if err != nil {
		return err
	}
	if have == w.offset {
		state, err := w.hash.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return err
		}
		p := progress{hash: state, place: place}
		if w.blob.Progress, err = p.marshal(); err != nil {
			return err
		}
		w.blob.Have = have
	}
	return w.renew(ctx)
}

// renew notes how far the file has come.
func (w *Writer) renew(ctx context.Context) error {
	claim := w.s.claim()
	until, again := w.until, w.again
	w.renewed()
	if err := w.s.cfg.Store.SaveBlob(ctx, w.blob, claim); err != nil {
		w.until, w.again = until, again
		return w.refused(err)
	}
	return nil
}

// renewed is called before the store is asked: a claim never lasts longer than is believed.
func (w *Writer) renewed() {
	now := time.Now()
	w.until, w.again = now.Add(claimFor-claimSlack), now.Add(claimAgain)
}

// Finish checks length and hash and makes the file available. With ErrHash the
// partial file is gone: the next upload begins at 0.
func (w *Writer) Finish() error {
	if w.done {
		return nil
	}
	if w.offset != w.up.Size {
		return ErrLength
	}
	// The work of this moment must not be cut off by the end of a connection.
	ctx := context.WithoutCancel(w.ctx)
	if err := w.check(ctx); err != nil {
		if errors.Is(err, ErrHash) {
			err = errors.Join(err, w.drop(ctx))
		}
		return err
	}
	if err := w.save(ctx); err != nil {
		return err
	}
	if err := w.draft.Commit(ctx); err != nil {
		return err
	}
	if err := w.s.cfg.Store.FinishBlob(ctx, w.blob, w.s.holder, w.expires()); err != nil {
		return w.refused(err)
	}
	w.done, w.claimed = true, false
	return nil
}

// check compares the hash of what arrived with the file's id. A partial file that lay
// on a disk between two uploads is read once more: it may have been altered there.
func (w *Writer) check(ctx context.Context) error {
	if [32]byte(w.hash.Sum(nil)) != w.up.ID {
		return ErrHash
	}
	whole, err := w.draft.Whole()
	if err != nil || whole == nil || !w.resumed {
		return err
	}
	again := sha256.New()
	for {
		n, err := io.CopyN(again, whole, Piece)
		if time.Now().After(w.again) {
			if err := w.renew(ctx); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil || n == 0 {
			return fmt.Errorf("blob: read the partial file again: %w", err)
		}
	}
	if [32]byte(again.Sum(nil)) != w.up.ID {
		return ErrHash
	}
	return nil
}

// drop ends the file, and deletes what there is of it.
func (w *Writer) drop(ctx context.Context) error {
	if w.draft != nil {
		_ = w.draft.Close()
		w.draft = nil
	}
	if err := w.s.cfg.Store.DropBlob(ctx, w.blob, w.s.holder); err != nil {
		return w.refused(err)
	}
	w.claimed = false
	return w.s.wipe(ctx, w.blob)
}

// never is past any clock of ours.
const never = 1 << 52

func (w *Writer) expires() int64 {
	if w.s.cfg.Expiry == 0 {
		return never
	}
	return w.s.cfg.Now().Add(w.s.cfg.Expiry).Truncate(time.Second).Unix()
}

// Close ends the upload and keeps what has arrived.
func (w *Writer) Close() error {
	var err error
	ctx := context.WithoutCancel(w.ctx)
	if w.draft != nil {
		if w.claimed && w.offset > w.blob.Have {
			err = w.save(ctx)
		}
		err = errors.Join(err, w.draft.Close())
		w.draft = nil
	}
	if w.claimed {
		err = errors.Join(err, w.s.cfg.Store.ReleaseBlob(ctx, w.blob, w.s.holder))
		w.claimed = false
	}
	if w.blob.Name != "" {
		w.s.release(w.blob.Name)
		w.blob.Name = ""
	}
	return err
}
