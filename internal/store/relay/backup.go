// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

// A backup is one file:
//
//	opaque magic[8] = "VALGBAK1"; Part parts<0..*>;
//	struct { uint8 kind; uint64 length; opaque data[length]; } Part;
//
// First comes info, as JSON; then the database, as SQLite writes it; what of the journal
// it does not have, a batch a part, in order; the copy of the authority's record, if
// there is one; and last, SHA-256 of all bytes before. The hash finds damage, not
// fraud: whoever can write a backup can write a gateway's database too.
//
// It is of one moment: the database as a snapshot, and all whole batches that followed
// it until the journal was read. A running gateway is not held up: its journal
// releases nothing meanwhile, that is all.
const (
	partInfo     = 1
	partDatabase = 2
	partBatch    = 3
	partRecord   = 4
	partEnd      = 255
)

var backupMagic = [8]byte{'V', 'A', 'L', 'G', 'B', 'A', 'K', '1'}

const (
	maxInfo     = 4 << 10 // a domain and a time
	maxDatabase = 1 << 42 // more than a gateway's disk
)

// ErrBackup is wrapped by errors of a file that is not a whole backup.
var ErrBackup = errors.New("relay store: the backup cannot be used")

// A Backup is what a backup says of itself.
type Backup struct {
	Domain  string    `json:"domain"`
	Time    time.Time `json:"time"` // what was taken up to then is in it
	Batches int       `json:"-"`    // of the journal
	Record  bool      `json:"-"`    // a copy of the authority's record is in it
}

// A Source says what to back up.
type Source struct {
	Path    string // of the database; its journal lies beside it
	Record  string // another SQLite file that goes along; empty: none
	Domain  string
	Scratch string // an empty folder with room for the database
}

// WriteBackup writes a backup of an embedded store, which a gateway may have open.
func WriteBackup(ctx context.Context, from Source, w io.Writer) (_ *Backup, err error) {
	b := &Backup{Domain: from.Domain}
	release, err := holdJournal(JournalDir(from.Path))
	if err != nil {
		return nil, fmt.Errorf("relay store: hold the journal: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	copied := filepath.Join(from.Scratch, "relay.db")
	if err := store.Snapshot(ctx, from.Path, copied); err != nil {
		return nil, err
	}
	j, err := readTaken(ctx, copied)
	if err != nil {
		return nil, err
	}
	b.Time = time.Now().UTC().Truncate(time.Second)
	info, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	out := newPartWriter(w)
	out.part(partInfo, info)
	out.file(partDatabase, copied)
	if j.there {
		next := j.light
		err := journal.ReadAfter(JournalDir(from.Path), j.id, j.light, func(seq uint64, body []byte) error {
			if next++; seq != next {
				return fmt.Errorf("%w: batch %d follows %d", journal.ErrDamaged, seq, next-1)
			}
			b.Batches++
			out.part(partBatch, body)
			return out.err
		})
		if err != nil {
			return nil, errors.Join(err, out.err)
		}
	}
	if err := errors.Join(out.err, os.Remove(copied)); err != nil {
		return nil, err
	}
	if from.Record != "" {
		if err := out.database(ctx, partRecord, from.Record, filepath.Join(from.Scratch, "record.db")); err != nil {
			return nil, err
		}
		b.Record = true
	}
	return b, out.end()
}

// holdJournal is journal.Hold for a store that may have no journal yet.
func holdJournal(dir string) (func() error, error) {
	release, err := journal.Hold(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	return release, err
}

// taken is what a database says of its journal.
type taken struct {
	there             bool
	id                [16]byte
	heavy, mail, part int64
	light             uint64
}

// readTaken reads it in a copy of a database.
func readTaken(ctx context.Context, path string) (p taken, err error) {
	s, err := openStore(ctx, Config{Path: path})
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, s.Close(), os.Remove(path+".lock")) }()
	if p.id, err = s.journalID(ctx, false); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return p, err
	}
	p.there = true
	return p, s.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT heavy, mail, part, light FROM journal`).Scan(&p.heavy, &p.mail, &p.part, &p.light)
	})
}

// A partWriter writes parts; after the first error it writes nothing.
type partWriter struct {
	w    *bufio.Writer
	hash hash.Hash
	err  error
}

func newPartWriter(w io.Writer) *partWriter {
	p := &partWriter{w: bufio.NewWriterSize(w, 256<<10), hash: sha256.New()}
	p.write(backupMagic[:])
	return p
}

func (p *partWriter) write(data []byte) {
	if p.err == nil {
		p.hash.Write(data)
		_, p.err = p.w.Write(data)
	}
}

func (p *partWriter) head(kind byte, length int64) {
	p.write(binary.BigEndian.AppendUint64([]byte{kind}, uint64(length)))
}

func (p *partWriter) part(kind byte, data []byte) {
	p.head(kind, int64(len(data)))
	p.write(data)
}

// file writes a file that nobody changes.
func (p *partWriter) file(kind byte, path string) {
	if p.err != nil {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		p.err = err
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		p.err = err
		return
	}
	p.head(kind, info.Size())
	if p.err == nil {
		_, p.err = io.CopyN(io.MultiWriter(p.w, p.hash), f, info.Size())
	}
}

// database writes a snapshot of a database, by way of a file that is removed.
func (p *partWriter) database(ctx context.Context, kind byte, path, by string) error {
	if err := store.Snapshot(ctx, path, by); err != nil {
		return err
	}
	p.file(kind, by)
	return errors.Join(p.err, os.Remove(by))
}

func (p *partWriter) end() error {
	p.part(partEnd, p.hash.Sum(nil))
	if p.err == nil {
		p.err = p.w.Flush()
	}
	return p.err
}
