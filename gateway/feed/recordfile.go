// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"valise/bulletin/stream"
	"valise/manifest"
)

// DocumentRecord is a part of the authority's record with what is signed about it, as a
// file (valise-enrolld export). It is taken in as if the authority had told it.
const DocumentRecord Document = "0-record"

// PutRecord lays such a file into a spool, as [Put] does with other documents.
func PutRecord(spool string, file io.Reader) (string, error) {
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(spool, ".incoming-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(file, maxRecordFile+1))
	if err == nil && n > maxRecordFile {
		err = fmt.Errorf("feed: a record of more than %d bytes", int64(maxRecordFile))
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	path := filepath.Join(spool, fmt.Sprintf("%s-%x%s", DocumentRecord, hash.Sum(nil), ready))
	_ = os.Remove(path + refused)
	return path, os.Rename(f.Name(), path)
}

// CheckRecord reads a whole file, and verifies as far as the pinned root goes: the
// gateway verifies the rest, against what it holds.
func CheckRecord(file io.Reader, cfg Config) error {
	in := bufio.NewReaderSize(io.LimitReader(file, maxRecordFile+1), 64<<10)
	for n := 0; ; n++ {
		e, err := stream.Read(in)
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("it is empty")
		case err != nil:
			return err
		case !inRecord[e.Kind]:
			return fmt.Errorf("%w: a %v in a file of an authority", stream.ErrMalformed, e.Kind)
		case e.Kind != stream.KindManifest:
			continue
		}
		m, err := manifest.ParseManifest(e.Body, cfg.Root)
		if err == nil && m.Domain != cfg.Domain {
			err = fmt.Errorf("it is for %s", m.Domain)
		}
		if err != nil {
			return err
		}
	}
}

// inRecord holds what a file may tell.
var inRecord = map[stream.Kind]bool{stream.KindManifest: true, stream.KindItem: true, stream.KindCheckpoint: true, stream.KindBulletin: true}

// takeRecord takes in a file as it would a stream. What is wrong in it ends it; what
// came before that was verified, and stays.
func (f *Feed) takeRecord(ctx context.Context, file io.Reader) error {
	t := &taker{f: f, ctx: ctx, in: bufio.NewReaderSize(file, 64<<10)}
	for {
		e, err := stream.Read(t.in)
		if errors.Is(err, io.EOF) {
			return t.flush()
		}
		if err == nil && !inRecord[e.Kind] {
			err = fmt.Errorf("%w: a %v", stream.ErrMalformed, e.Kind)
		}
		if errors.Is(err, stream.ErrMalformed) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.Join(refuse("record", err), t.flush())
		}
		if err == nil {
			err = t.take(e)
		}
		if err != nil {
			return errors.Join(err, t.flush())
		}
	}
}

// Export writes what this gateway knows, for an authority that it cannot reach and that
// lost its database: where it stands, then what it would give back over a connection.
// See spec/bulletin.md, Section 6.1.
func (f *Feed) Export(ctx context.Context, w io.Writer) (leaves int64, err error) {
	held, err := f.copy.held(ctx)
	if err != nil {
		return 0, err
	}
	hello := stream.Hello{Size: held.size}
	f.mu.Lock()
	if f.manifest != nil {
		hello.Manifest = f.manifest.Number
	}
	f.mu.Unlock()
	if err := stream.Write(w, hello.Event()); err != nil {
		return 0, err
	}
	return held.size, f.writeBack(ctx, w, held, 0)
}

// writeBack writes everything from a leaf on.
func (f *Feed) writeBack(ctx context.Context, w io.Writer, held *held, from int64) error {
	if err := documents(w, held, nil); err != nil {
		return err
	}
	for from < held.size {
		items, err := f.copy.items(ctx, from, batch)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return fmt.Errorf("feed: leaf %d of the copy is missing", from)
		}
		for _, i := range items {
			if i.Index >= held.size {
				break
			}
			if err := stream.Write(w, stream.Item{Index: i.Index, Entry: i.Entry.Marshal(), Payload: i.Payload}.Event()); err != nil {
				return err
			}
		}
		from = items[len(items)-1].Index + 1
	}
	if held.bulletin == nil {
		return nil
	}
	return stream.Write(w, stream.Event{Kind: stream.KindBulletin, Body: held.bulletin})
}
