// SPDX-License-Identifier: Apache-2.0

package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"

	"valise/gateway/blob"
)

// A draft is a file that is arriving: the pieces that the store has, and the one that is not
// full yet.
type draft struct {
	b     *Bucket
	ctx   context.Context
	name  string
	key   string
	size  uint64
	state state
	tags  []minio.CompletePart
	piece []byte
	put   uint64 // bytes that the store has
	whole bool   // the store has put the pieces together
	err   error  // what ended it
	give  func()
}

// Draft implements blob.Place.
func (b *Bucket) Draft(ctx context.Context, name string, size, have uint64, progress []byte) (blob.Draft, error) {
	select {
	case b.slots <- struct{}{}:
	default:
		return nil, blob.ErrBusy // each upload has a piece in memory
	}
	d := &draft{b: b, ctx: ctx, name: name, key: b.key(name), size: size, give: func() { <-b.slots }}
	if have > 0 {
		if err := d.resume(have, progress); err != nil {
			_ = d.Close()
			return nil, err
		}
	}
	return d, nil
}

// resume goes on with an upload if the store has what was noted of it.
func (d *draft) resume(have uint64, progress []byte) error {
	s, err := parseState(progress)
	if err != nil || have > d.size || have != min(uint64(s.pieces)*blob.Piece, d.size) {
		return nil // from the beginning
	}
	ctx, cancel := context.WithTimeout(d.ctx, askTime)
	defer cancel()
	var seen state
	var tags []minio.CompletePart
	for seen.pieces < s.pieces {
		page, err := d.b.core.ListObjectParts(ctx, d.b.name, d.key, s.upload, seen.pieces, listed)
		if missing(err) {
			// All of it may have been put together by whoever died right after it.
			if d.whole, err = d.b.Has(ctx, d.name, d.size); err == nil && d.whole && have == d.size {
				d.put = d.size
				return nil
			}
			d.whole = false
			return err
		}
		if err != nil {
			return fmt.Errorf("bucket: list an upload's pieces: %w", err)
		}
		before := seen.pieces
		for _, p := range page.ObjectParts {
			if seen.pieces == s.pieces {
				break
			}
			// Some stores put the tag into quotes here, as HTTP does.
			tag := strings.Trim(p.ETag, `"`)
			if p.PartNumber != seen.pieces+1 || uint64(p.Size) != min(blob.Piece, d.size-uint64(seen.pieces)*blob.Piece) || len(tag) > maxTag {
				return d.restart(ctx, s)
			}
			seen.add(tag)
			tags = append(tags, minio.CompletePart{PartNumber: p.PartNumber, ETag: tag})
		}
		if seen.pieces == before {
			break
		}
	}
	if seen.pieces != s.pieces || seen.chain != s.chain {
		return d.restart(ctx, s)
	}
	d.state, d.tags, d.put = *s, tags, have
	return nil
}

// restart gives up an upload that is not what was noted of it.
func (d *draft) restart(ctx context.Context, s *state) error {
	if err := d.b.core.AbortMultipartUpload(ctx, d.b.name, d.key, s.upload); err != nil && !missing(err) {
		return fmt.Errorf("bucket: end an upload: %w", err)
	}
	return nil
}

// Offset implements blob.Draft.
func (d *draft) Offset() uint64 { return d.put + uint64(len(d.piece)) }

// Write implements blob.Draft. The piece grows with what arrives.
func (d *draft) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 && d.err == nil {
		part := p[:min(len(p), blob.Piece-len(d.piece))]
		d.piece = append(d.piece, part...)
		n, p = n+len(part), p[len(part):]
		if len(d.piece) == blob.Piece {
			d.err = d.flush(d.ctx)
		}
	}
	return n, d.err
}

// flush puts the piece.
func (d *draft) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	if d.state.upload == "" {
		upload, err := d.b.core.NewMultipartUpload(ctx, d.b.name, d.key, minio.PutObjectOptions{ContentType: "application/octet-stream"})
		if err != nil {
			return fmt.Errorf("bucket: begin an upload: %w", err)
		}
		d.state.upload = upload
	}
	sum := sha256.Sum256(d.piece)
	part, err := d.b.core.PutObjectPart(ctx, d.b.name, d.key, d.state.upload, d.state.pieces+1, bytes.NewReader(d.piece), int64(len(d.piece)),
		minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(sum[:])})
	if err != nil {
		return fmt.Errorf("bucket: put a piece: %w", err)
	}
	tag := strings.Trim(part.ETag, `"`)
	if tag == "" || len(tag) > maxTag {
		return errState
	}
	d.state.add(tag)
	d.tags = append(d.tags, minio.CompletePart{PartNumber: d.state.pieces, ETag: tag})
	d.put += uint64(len(d.piece))
	d.piece = d.piece[:0]
	return nil
}

// Save implements blob.Draft: what is in a piece that is not full is not persisted, but
// for the last one of several.
func (d *draft) Save(ctx context.Context) (uint64, []byte, error) {
	if d.err != nil {
		return 0, nil, d.err
	}
	if d.state.pieces > 0 && len(d.piece) > 0 && d.Offset() == d.size {
		if d.err = d.flush(ctx); d.err != nil {
			return 0, nil, d.err
		}
	}
	if d.state.pieces == 0 {
		return 0, nil, nil
	}
	progress, err := d.state.marshal()
	return d.put, progress, err
}

// Whole implements blob.Draft: the server has compared each piece's SHA-256.
func (*draft) Whole() (io.Reader, error) { return nil, nil }

// Commit implements blob.Draft.
func (d *draft) Commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	switch {
	case d.err != nil || d.whole:
		return d.err
	case d.state.pieces == 0:
		sum := sha256.Sum256(d.piece)
		_, err := d.b.core.PutObject(ctx, d.b.name, d.key, bytes.NewReader(d.piece), int64(len(d.piece)), "", hex.EncodeToString(sum[:]),
			minio.PutObjectOptions{ContentType: "application/octet-stream"})
		if err != nil {
			return fmt.Errorf("bucket: put a file: %w", err)
		}
		return nil
	}
	if _, err := d.b.core.CompleteMultipartUpload(ctx, d.b.name, d.key, d.state.upload, d.tags, minio.PutObjectOptions{}); err != nil {
		return fmt.Errorf("bucket: put the pieces together: %w", err)
	}
	return nil
}

// Close implements blob.Draft.
func (d *draft) Close() error {
	if d.give != nil {
		d.give()
		d.give = nil
	}
	return nil
}
