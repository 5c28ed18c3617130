// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"valise/client/file"
	"valise/client/vault"
	"valise/transport"
	"valise/wire"
)

// A transfer is a file on its way to the gateway. It survives restarts of either.
type transfer struct {
	ID           MessageID      `json:"id"`
	Conversation ConversationID `json:"conversation"`
	Path         string         `json:"path"`
	Plan         []byte         `json:"plan"`
	Started      int64          `json:"started"`
	InReplyTo    MessageID      `json:"in_reply_to,omitzero"`
	Mark         mark           `json:"mark,omitzero"`
}

// SendFile measures a file and queues it; the draft has no text. As with Send, Wait tells
// when the gateway has it; progress is told of the measuring, Uploaded of the upload. The
// file must stay unchanged until then.
func (e *Engine) SendFile(ctx context.Context, d Draft, path string, progress file.Progress) (MessageID, error) {
	id := d.ID
	path, err := filepath.Abs(path)
	if err != nil {
		return id, err
	}
	f, err := os.Open(path)
	if err != nil {
		return id, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return id, err
	}
	if !info.Mode().IsRegular() {
		return id, fmt.Errorf("%s is not a plain file", path)
	}
	if id == (MessageID{}) {
		id = NewMessageID()
	} else if _, err := e.Outcome(ctx, id); err == nil {
		return id, nil // queued before
	}
	m, err := e.fitting(d)
	if err != nil {
		return id, err
	}
	plan, err := file.Measure(ctx, f, uint64(info.Size()), file.Named(path), progress)
	if err != nil {
		return id, err
	}
	raw, err := plan.Marshal()
	if err != nil {
		return id, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conversations[d.Conversation] == nil {
		return id, errNoConversation
	}
	return id, e.update(func(c *change) error {
		t := transfer{ID: id, Conversation: d.Conversation, Path: path, Plan: raw, Started: e.now().UnixMilli(), InReplyTo: d.InReplyTo, Mark: m}
		return errors.Join(putJSON(c.Tx, tableTransfer, nil, id[:], t), putJSON(c.Tx, tableMine, nil, id[:], Outcome{State: OutcomeQueued}))
	})
}

// Uploaded says how far the upload of a file is; ok is false when it is not going on.
func (e *Engine) Uploaded(id MessageID) (done, total uint64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.uploads[id]
	return p[0], p[1], ok
}

// upload sends what waits to be sent, one file after another, while a link lasts.
func (e *Engine) upload(ctx context.Context, l *link) error {
	for {
		news := e.bell.wait()
		list, err := e.transfers()
		if err != nil {
			return stopped(err)
		}
		pause := time.Minute
		for _, t := range list {
			ready, err := e.uploadOne(ctx, l, t)
			if err != nil {
				return err
			}
			if !ready {
				pause = retryRefused
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-news:
		case <-timer.C:
		case <-l.dead:
			err = l.cause()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

func (e *Engine) transfers() ([]*transfer, error) {
	var list []*transfer
	err := e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		list, err = listJSON[transfer](tx, tableTransfer, nil)
		return err
	})
	return list, err
}

// uploadOne brings one file to the gateway and queues its message. It returns false
// if the file has to wait, and an error only for the link or the vault.
func (e *Engine) uploadOne(ctx context.Context, l *link, t *transfer) (bool, error) {
	e.mu.Lock()
	conv := e.conversations[t.Conversation]
	e.mu.Unlock()
	switch {
	case conv == nil || conv.State == stateLeft:
		return true, e.cancelTransfer(t, ErrNotMember)
	case conv.State == stateFailed:
		return true, e.cancelTransfer(t, errors.New(conv.Why))
	case conv.State != stateActive:
		return false, nil
	}
	plan, err := file.ParsePlan(t.Plan)
	if err != nil {
		return true, e.cancelTransfer(t, err)
	}
	f, err := os.Open(t.Path)
	if err != nil {
		return true, e.cancelTransfer(t, err)
	}
	defer f.Close()
	err = e.put(ctx, l, conv.Group, t.ID, plan, f)
	switch {
	case err == nil:
		return true, e.announce(t, plan)
	case errors.Is(err, ErrStopped):
		return false, err
	case errors.Is(err, file.ErrSourceChanged):
		return true, e.cancelTransfer(t, err)
	case errors.Is(err, wire.NoRoom):
		return false, e.waitRoom(t)
	case errors.Is(err, wire.Unavailable), errors.Is(err, wire.RateLimited), errors.Is(err, wire.HashMismatch), errors.Is(err, wire.StaleEpoch):
		return false, nil
	}
	if errors.Is(err, wire.UnknownGroup) {
		return false, e.uploadGone(conv)
	}
	if code := wire.Code(0); errors.As(err, &code) {
		return true, e.cancelTransfer(t, refusal(code))
	}
	select {
	case <-l.dead:
		return false, l.cause()
	default:
		e.cfg.Log.Info("upload broke off", "error", err)
		return false, context.Cause(ctx)
	}
}

// waitRoom shows that a file waits for room at the gateway.
func (e *Engine) waitRoom(t *transfer) error {
	why := refusal(wire.NoRoom)
	e.mu.Lock()
	defer e.mu.Unlock()
	return stopped(e.update(func(c *change) error {
		return putJSON(c.Tx, tableMine, nil, t.ID[:], Outcome{State: OutcomeQueued, Reason: why.Error(), Hint: hintOf(why)})
	}))
}

// put is one attempt: BlobPut, BlobReady, the bytes from where the gateway wants
// them, Result (spec/wire.md, Section 8).
func (e *Engine) put(ctx context.Context, l *link, group []byte, id MessageID, plan *file.Plan, f io.ReaderAt) error {
	s, release, err := l.blobStream(ctx, wire.StreamBlobPut, &wire.BlobPut{Group: group, Blob: plan.Reference.Blob, Size: plan.Reference.Size})
	if err != nil {
		return err
	}
	defer release()
	ready, err := blobReady(s)
	if err != nil {
		return err
	}
	if ready.Size != plan.Reference.Size {
		return wire.ErrMalformed
	}
	e.uploaded(id, ready.Offset, ready.Size)
	defer e.uploaded(id, 0, 0)
	err = plan.Write(ctx, f, &uploading{l.pacer.Writer(ctx, s), e}, ready.Offset, func(done, total uint64) { e.uploaded(id, done, total) })
	if err != nil {
		s.CancelWrite(0)
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	answer, err := wire.Read(s)
	if err != nil {
		return err
	}
	r, ok := answer.(*wire.Result)
	if !ok {
		return wire.ErrMalformed
	}
	if r.Code != wire.OK {
		return r.Code
	}
	return nil
}

// uploading is where a test may stop the engine in the middle of a file.
type uploading struct {
	io.Writer
	e *Engine
}

func (u *uploading) Write(p []byte) (int, error) {
	if err := u.e.at("upload"); err != nil {
		return 0, stopped(err)
	}
	return u.Writer.Write(p)
}

func (e *Engine) uploaded(id MessageID, done, total uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if total == 0 {
		delete(e.uploads, id)
		return
	}
	e.uploads[id] = [2]uint64{done, total}
}

// announce queues the message about an uploaded file, in the transaction that ends
// the transfer.
func (e *Engine) announce(t *transfer, plan *file.Plan) error {
	body, err := plan.Reference.Marshal()
	if err != nil {
		return stopped(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return stopped(e.update(func(c *change) error {
		content := &wire.Content{ID: t.ID, MediaType: wire.MediaFile, InReplyTo: t.InReplyTo, Time: uint64(t.Started), Body: body}
		in, err := e.queueContent(c, t.Conversation, content, t.Mark)
		if err != nil {
			return err
		}
		return errors.Join(c.outcome(in, OutcomeQueued, nil), c.Delete(tableTransfer, nil, t.ID[:]))
	}))
}

func (e *Engine) cancelTransfer(t *transfer, why error) error {
	e.cfg.Log.Warn("file not sent", "error", why)
	e.mu.Lock()
	defer e.mu.Unlock()
	return stopped(e.update(func(c *change) error {
		return errors.Join(c.Delete(tableTransfer, nil, t.ID[:]),
			putJSON(c.Tx, tableMine, nil, t.ID[:], Outcome{State: OutcomeRefused, Reason: why.Error(), Hint: hintOf(why)}))
	}))
}

// blobStream opens a stream for one file. release must be called; it also ends the
// stream when ctx does.
func (l *link) blobStream(ctx context.Context, kind wire.StreamKind, first wire.Frame) (transport.Stream, func(), error) {
	conn, err := l.forFiles(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := conn.OpenStream(ctx)
	if err != nil {
		return nil, nil, err
	}
	abort := func() { s.CancelRead(0); s.CancelWrite(0) }
	stop := context.AfterFunc(ctx, abort)
	release := func() { stop(); abort() } // QUIC forgets a stream when both of its halves have ended
	if err := sayFirst(s, kind, first); err != nil {
		abort()
		release()
		return nil, nil, err
	}
	return s, release, nil
}

func blobReady(s transport.Stream) (*wire.BlobReady, error) {
	f, err := wire.Read(s)
	if err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case *wire.BlobReady:
		if f.Code != wire.OK {
			return nil, f.Code
		}
		return f, nil
	case *wire.Result:
		return nil, f.Code
	}
	return nil, wire.ErrMalformed
}

// Fetch brings the file of an event into a folder and returns its path. It goes on
// through broken connections until ctx ends. Asked again for the same folder it
// returns the same file, as long as that is there. A file that will not come is a *FileError.
func (e *Engine) Fetch(ctx context.Context, cursor, dir string, progress file.Progress) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	r, ref, err := e.fileEvent(ctx, cursor)
	if err != nil {
		return "", err
	}
	if path, err := e.fetched(ctx, r.ID, dir); err != nil || path != "" {
		return path, err
	}
	for {
		news := e.bell.wait()
		path, err := e.fetchOnce(ctx, ref, dir, progress)
		if err == nil {
			return path, e.keepFetched(r, dir, path)
		}
		if !errors.Is(err, ErrOffline) && !errors.Is(err, errBroken) {
			return "", fileError(err)
		}
		timer := time.NewTimer(retryRefused)
		select {
		case <-news:
		case <-timer.C:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return "", err
		}
	}
}

// errBroken marks a download that can go on where it broke off.
var errBroken = errors.New("the download broke off")

func (e *Engine) fetchOnce(ctx context.Context, ref *wire.FileReference, dir string, progress file.Progress) (string, error) {
	e.mu.Lock()
	l := e.link
	e.mu.Unlock()
	if l == nil {
		return "", ErrOffline
	}
	return file.Fetch(ctx, ref, dir, func(ctx context.Context, offset uint64) (io.ReadCloser, error) {
		s, release, err := l.blobStream(ctx, wire.StreamBlobGet, &wire.BlobGet{Blob: ref.Blob, Offset: offset})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBroken, err)
		}
		ready, err := blobReady(s)
		var code wire.Code
		switch {
		case errors.As(err, &code) && code == wire.NotFound:
			err = file.ErrGone
		case errors.As(err, &code) && code != wire.Unavailable && code != wire.RateLimited:
			err = refusal(code)
		case err != nil:
			err = fmt.Errorf("%w: %w", errBroken, err)
		case ready.Offset != offset || ready.Size != ref.Size:
			err = file.ErrAltered
		}
		if err != nil {
			release()
			return nil, err
		}
		return &blobReader{s, release}, nil
	}, progress)
}

// blobReader tells a broken stream from a broken disk.
type blobReader struct {
	s       transport.Stream
	release func()
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.s.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", errBroken, err)
	}
	return n, err
}

func (b *blobReader) Close() error { b.s.CancelWrite(0); b.release(); return nil }

func (e *Engine) fileEvent(ctx context.Context, cursor string) (*eventRecord, *wire.FileReference, error) {
	e.mu.Lock()
	m := e.meta.clone()
	e.mu.Unlock()
	n, err := m.position(cursor)
	if err != nil {
		return nil, nil, err
	}
	var r *eventRecord
	err = e.cfg.Vault.View(ctx, func(tx *vault.Tx) (err error) {
		r, err = getJSON[eventRecord](tx, tableEvent, nil, vault.Numbered(n))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if r == nil || r.Cursor != cursor || r.Reference == nil {
		return nil, nil, fmt.Errorf("no file came with event %.40q", cursor)
	}
	ref, err := wire.ParseFileReference(r.Reference)
	return r, ref, fileError(err)
}

func (e *Engine) fetched(ctx context.Context, id MessageID, dir string) (string, error) {
	var raw []byte
	err := e.cfg.Vault.View(ctx, func(tx *vault.Tx) (err error) {
		raw, err = tx.Get(tableFetched, id[:], []byte(dir))
		return err
	})
	if err != nil || raw == nil {
		return "", err
	}
	if _, err := os.Lstat(string(raw)); err != nil {
		return "", nil // moved away: fetch it again
	}
	return string(raw), nil
}

// keepFetched notes that a file is on this device's disk, in the transaction that says
// that the gateway is to be told so.
func (e *Engine) keepFetched(r *eventRecord, dir, path string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.update(func(c *change) error {
		err := c.Put(tableFetched, r.ID[:], []byte(dir), []byte(path))
		if r.Outgoing {
			return err
		}
		return errors.Join(err, e.oweFile(c, r, false))
	})
}
