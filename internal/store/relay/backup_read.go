// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
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

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

// taker is told what a backup consists of, in order. Each part is read to its end
// whatever the taker reads of it.
type taker interface {
	database(r io.Reader) error
	batch(body []byte) error
	record(r io.Reader) error
}

// ReadBackup reads a whole backup and checks that it is complete and undamaged.
func ReadBackup(r io.Reader) (*Backup, error) { return readBackup(r, nil) }

// readBackup reads parts; a nil taker: to check them.
func readBackup(r io.Reader, to taker) (*Backup, error) {
	p := &partReader{r: bufio.NewReaderSize(r, 256<<10), hash: sha256.New(), to: to}
	if err := p.read(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	return &p.backup, nil
}

type partReader struct {
	r      *bufio.Reader
	hash   hash.Hash
	to     taker
	backup Backup
	last   byte // kind of the part before
}

// exactly fills data, which is hashed.
func (p *partReader) exactly(data []byte) error {
	if _, err := io.ReadFull(p.r, data); err != nil {
		return fmt.Errorf("the file ends too early: %w", err)
	}
	p.hash.Write(data)
	return nil
}

func (p *partReader) read() error {
	var magic [8]byte
	if err := p.exactly(magic[:]); err != nil {
		return err
	}
	if magic != backupMagic {
		return errors.New("this is no backup of a gateway")
	}
	for {
		sum := p.hash.Sum(nil)
		var head [9]byte
		if err := p.exactly(head[:]); err != nil {
			return err
		}
		kind, length := head[0], binary.BigEndian.Uint64(head[1:])
		if !follows(p.last, kind) {
			return fmt.Errorf("a part of kind %d after one of kind %d", kind, p.last)
		}
		p.last = kind
		if kind == partEnd {
			return p.end(length, sum)
		}
		if err := p.part(kind, length); err != nil {
			return err
		}
	}
}

// follows says in which order parts come.
func follows(before, kind byte) bool {
	switch kind {
	case partInfo:
		return before == 0
	case partDatabase:
		return before == partInfo
	case partBatch:
		return before == partDatabase || before == partBatch
	case partRecord, partEnd:
		return before == partDatabase || before == partBatch || kind == partEnd && before == partRecord
	}
	return false
}

func (p *partReader) part(kind byte, length uint64) error {
	switch kind {
	case partInfo:
		return p.info(length)
	case partBatch:
		body, err := p.small(length, journal.MaxBody)
		if err != nil {
			return err
		}
		if p.backup.Batches++; p.to == nil {
			return parseRecord(body, nothing{})
		}
		return p.to.batch(body)
	}
	if length > maxDatabase {
		return fmt.Errorf("a part of %d bytes", length)
	}
	p.backup.Record = p.backup.Record || kind == partRecord
	part := &io.LimitedReader{R: io.TeeReader(p.r, p.hash), N: int64(length)}
	var err error
	switch {
	case p.to != nil && kind == partDatabase:
		err = p.to.database(part)
	case p.to != nil:
		err = p.to.record(part)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, part)
	}
	if err == nil && part.N > 0 {
		err = errors.New("the file ends too early")
	}
	return err
}

// small reads a part into memory, which grows with what is there.
func (p *partReader) small(length uint64, most int64) ([]byte, error) {
	if length > uint64(most) {
		return nil, fmt.Errorf("a part of %d bytes", length)
	}
	var out bytes.Buffer
	if n, err := io.CopyN(&out, io.TeeReader(p.r, p.hash), int64(length)); err != nil {
		return nil, fmt.Errorf("the file ends too early, after %d of %d bytes of a part", n, length)
	}
	return out.Bytes(), nil
}

func (p *partReader) info(length uint64) error {
	data, err := p.small(length, maxInfo)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p.backup); err != nil {
		return fmt.Errorf("what it says of itself: %w", err)
	}
	again, err := json.Marshal(p.backup)
	if err == nil && !bytes.Equal(again, data) {
		err = errors.New("what it says of itself is not in the form in which backups are written")
	}
	return err
}

func (p *partReader) end(length uint64, sum []byte) error {
	var said [sha256.Size]byte
	if length != uint64(len(said)) {
		return errors.New("its hash has another length")
	}
	if err := p.exactly(said[:]); err != nil {
		return err
	}
	if !bytes.Equal(said[:], sum) {
		return errors.New("the file was damaged: its hash is another one")
	}
	if _, err := p.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

// The files of a gateway's data folder that a restore makes.
const (
	DatabaseName = "relay.db"
	RecordName   = "record.db"
)

// Restore makes a gateway's store out of a backup, in a folder that has none, and marks
// it as restored. It is there whole, or not at all.
func Restore(ctx context.Context, from io.ReadSeeker, dir string, now time.Time) (_ *Backup, r Restoration, err error) {
	b, err := ReadBackup(from)
	if err != nil {
		return nil, r, err
	}
	for _, name := range []string{DatabaseName, DatabaseName + "-wal", filepath.Base(JournalDir(DatabaseName)), RecordName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, r, fmt.Errorf("relay store: %s exists: restore into an empty data directory", filepath.Join(dir, name))
		}
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return nil, r, err
	}
	scratch, err := os.MkdirTemp(dir, ".restore-*") // mode 0700
	if err != nil {
		return nil, r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	u := &unpacking{ctx: ctx, dir: scratch}
	if _, err = readBackup(from, u); err == nil {
		err = u.finish(b.Time, now, &r)
	}
	if err != nil {
		return nil, r, errors.Join(err, u.close())
	}
	return b, r, u.place(dir, b.Record)
}

// An unpacking lays a backup's parts into a folder.
type unpacking struct {
	ctx context.Context
	dir string
	log *journal.Journal // nil before the first batch
}

// scratchSegment is the size of the files of a journal that is read once.
const scratchSegment = 8 << 20

func (u *unpacking) file(name string, r io.Reader) error {
	f, err := os.OpenFile(filepath.Join(u.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

func (u *unpacking) path() string { return filepath.Join(u.dir, DatabaseName) }

func (u *unpacking) database(r io.Reader) error { return u.file(DatabaseName, r) }
func (u *unpacking) record(r io.Reader) error   { return u.file(RecordName, r) }

// batch puts a batch into a journal that begins behind what the database has.
func (u *unpacking) batch(body []byte) error {
	if u.log == nil {
		p, err := u.shorten()
		if err != nil {
			return err
		}
		if err := os.Mkdir(JournalDir(u.path()), 0o700); err != nil {
			return err
		}
		// It is read again at once, and what becomes of it is synced.
		u.log, err = journal.Open(journal.Config{Dir: JournalDir(u.path()), ID: p.id, Segment: scratchSegment, UnsafeNoSync: true})
		if err != nil {
			return err
		}
	}
	_, _, err := u.log.Append(append(make([]byte, journal.Head, journal.Head+len(body)), body...))
	return err
}

// shorten lets the database's marks count from what it has.
func (u *unpacking) shorten() (p taken, err error) {
	if p, err = readTaken(u.ctx, u.path()); err != nil || !p.there {
		return p, errors.Join(err, errors.New("it has batches of a journal that its database does not know"))
	}
	light := int64(p.light)
	if p.mail <= light {
		p.mail, p.part = light, 0
	}
	s, err := openStore(u.ctx, Config{Path: u.path()})
	if err != nil {
		return p, err
	}
	return p, errors.Join(s.db.Update(u.ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(u.ctx, `UPDATE journal SET begun = 1, heavy = $1, mail = $2, part = $3, light = 0`,
			max(p.heavy-light, 0), p.mail-light, p.part)
		return err
	}), s.Close())
}

func (u *unpacking) close() error {
	if u.log == nil {
		return nil
	}
	log := u.log
	u.log = nil
	return log.Close()
}

// finish makes one database of all, without a journal, and marks it as restored.
func (u *unpacking) finish(since, now time.Time, r *Restoration) (err error) {
	if u.log == nil {
		err = u.forgetJournal()
	} else {
		err = u.close()
	}
	if err != nil {
		return err
	}
	if *r, err = Restored(u.ctx, Config{Path: u.path(), Segment: scratchSegment}, since, now); err != nil {
		return err
	}
	return u.forgetJournal()
}

func (u *unpacking) forgetJournal() error {
	s, err := openStore(u.ctx, Config{Path: u.path()})
	if err != nil {
		return err
	}
	err = s.db.Update(u.ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(u.ctx, `DELETE FROM journal`)
		return err
	})
	return errors.Join(err, s.Close(), os.RemoveAll(JournalDir(u.path())))
}

// place moves what was made to where a gateway looks for it, the database last. Nothing
// is replaced.
func (u *unpacking) place(dir string, record bool) error {
	if _, err := os.Lstat(u.path() + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(errors.New("relay store: the database that was made is not in one file"), err)
	}
	names := []string{DatabaseName}
	if record {
		names = []string{RecordName, DatabaseName}
	}
	for _, name := range names {
		if err := syncFile(filepath.Join(u.dir, name)); err != nil {
			return err
		}
		if err := os.Link(filepath.Join(u.dir, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return syncFile(dir)
}

// syncFile brings a file, or a folder's entries, to the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// nothing looks at items and does nothing with them.
type nothing struct{}

func (nothing) arrival(*arrivalItem) error              { return nil }
func (nothing) submission(*submissionItem) error        { return nil }
func (nothing) step(*stepItem) error                    { return nil }
func (nothing) message(*messageItem) error              { return nil }
func (nothing) keyPackage(*mailbox.KeyPackage) error    { return nil }
func (nothing) after(*state) error                      { return nil }
func (nothing) hold(device int64, h mailbox.Hold) error { return nil }
