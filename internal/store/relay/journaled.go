// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

// ErrJournaled is returned when a database is opened without the journal that
// belongs to it.
var ErrJournaled = errors.New("this database has a journal beside it with mail that it has not taken over: open both")

// A Journaled is a Store with a journal in front of it. A batch is one write and
// one sync to the journal; states, the index of waiting mail and recent hashes are in
// memory; a goroutine moves into the database what is still wanted when the
// journal has grown, in large transactions. Mail that is acknowledged before that
// never reaches the database.
//
// What the journal says holds after a batch is absolute, and the database keeps
// marks in the transactions of what was moved. So Open reads the journal from
// the mark on, as often as it takes, and arrives at the same state.
type Journaled struct {
	db  *Store
	log *journal.Journal
	cfg bounds

	probe func(step string) // for tests; may be nil

	// commit is held from the first look at what a batch depends on until its
	// effects can be seen; it is taken before mu.
	commit     sync.Mutex
	judge      judge             // guarded by commit
	round      uint64            // guarded by commit
	kept       entry             // guarded by commit; empty memory
	groups     map[string]*group // guarded by commit
	nextDevice int64             // guarded by commit
	nextGroup  int64             // guarded by commit

	mu      sync.Mutex
	changed *sync.Cond              // of what the mover and those who wait for it look at
	boxes   map[mailbox.Device]*box // guarded by mu, written with commit held as well
	byID    map[int64]*box          // the same
	active  map[*box]bool           // guarded by mu; those that are not clean
	fifo    []*letter               // guarded by mu; in the journal's order
	pending int                     // guarded by mu; pointers in all indexes
	living  int                     // guarded by mu; letters that somebody waits for
	heavy   []heavyWork             // guarded by mu
	weight  int                     // guarded by mu; bytes in heavy
	pauses  *time.Timer             // guarded by mu; wakes the mover when heavy is due; nil: none runs
	waiters int                     // guarded by mu; who waits for the mover
	queued  uint64                  // guarded by mu; heavy work so far
	settled uint64                  // guarded by mu; of it, what the database has
	marks   marks                   // guarded by mu; as the database has them
	begun   bool                    // the journal has its first file
	last    uint64                  // guarded by mu; last batch whose effects can be seen
	target  uint64                  // guarded by mu; the batch up to which is moved now
	sweeps  uint64                  // guarded by mu; sweeps asked for
	swept   uint64                  // guarded by mu; sweeps done
	err     error                   // guarded by mu; why the mover cannot go on
	failed  error                   // guarded by mu; why the last batch is not in the journal
	moving  bool                    // guarded by mu; the mover has been started
	ending  bool                    // guarded by mu

	door      sync.Mutex  // may be taken while commit is held
	arrivals  []*arriving // guarded by door; in the order in which they came
	receiving bool        // guarded by door; somebody takes them in

	done chan struct{} // closed when the mover has ended
}

var _ mailbox.Store = (*Journaled)(nil)

// bounds say when the mover starts and when commits wait for it.
type bounds struct {
	files, maxFiles     int // of the journal that are not moved
	pointers, maxWeight int
	noticed             int // devices that are kept in memory only because they came
}

// marks say what of the journal the database has.
type marks struct {
	heavy uint64 // steps, KeyPackages, arrivals and holds up to this batch
	mail  uint64 // mail up to message part of this batch
	part  int64
	light uint64 // everything up to this batch
}

// JournalDir is where the journal of a database lies.
func JournalDir(path string) string { return strings.TrimSuffix(path, ".db") + ".journal" }

// OpenJournaled creates or opens the database with its journal, and reads again
// what the database does not have.
func OpenJournaled(ctx context.Context, cfg Config) (_ *Journaled, err error) {
	db, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	j := newJournaled(db, cfg)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("relay store: %w", err), j.Close())
		}
	}()
	if err := j.load(ctx); err != nil {
		return nil, err
	}
	id, err := db.journalID(ctx, true)
	if err != nil {
		return nil, err
	}
	if err := j.journalThere(JournalDir(cfg.Path)); err != nil {
		return nil, err
	}
	j.log, err = journal.Open(journal.Config{
		Dir: JournalDir(cfg.Path), ID: id, Segment: cfg.Segment, Disk: cfg.Disk, UnsafeNoSync: cfg.UnsafeNoSync,
	})
	if err != nil {
		return nil, err
	}
	if err := j.replay(ctx); err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	if !j.begun {
		if err := db.beginJournal(ctx); err != nil {
			return nil, err
		}
	}
	j.moving = true
	go j.move()
	return j, nil
}

func newJournaled(db *Store, cfg Config) *Journaled {
	j := &Journaled{
		db: db, judge: judge{quota: withDefaults(cfg.Quota)}, probe: cfg.probe, cfg: bounds{keptFiles, maxFiles, maxPointers, maxWeight, maxNoticed},
		groups: make(map[string]*group), boxes: make(map[mailbox.Device]*box), byID: make(map[int64]*box),
		active: make(map[*box]bool), done: make(chan struct{}),
	}
	j.changed = sync.NewCond(&j.mu)
	return j
}

// journalID returns the id that a database and its journal share, and makes one
// if it should.
func (s *Store) journalID(ctx context.Context, create bool) (id [16]byte, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		var stored []byte
		err := tx.QueryRowContext(ctx, `SELECT id FROM journal`).Scan(&stored)
		if errors.Is(err, sql.ErrNoRows) && create {
			stored = make([]byte, 16)
			_, _ = rand.Read(stored) // never fails
			_, err = tx.ExecContext(ctx, `INSERT INTO journal (one, id, begun, heavy, mail, part, light) VALUES (1, $1, 0, 0, 0, 0, 0)`, stored)
		}
		if err == nil && len(stored) != len(id) {
			err = errors.New("the database's row about its journal is damaged")
		}
		copy(id[:], stored)
		return err
	})
	return id, err
}

// beginJournal notes that the journal has its first file: from now on it must be there.
func (s *Store) beginJournal(ctx context.Context) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE journal SET begun = 1`)
		return err
	})
}

// journalThere makes the journal's folder for a new database, and refuses one whose
// journal is gone.
func (j *Journaled) journalThere(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "segment-*"))
	if err == nil && len(files) == 0 && j.begun {
		err = fmt.Errorf("%w: %s has no files", journal.ErrDamaged, dir)
	}
	return err
}

// load reads what every batch needs.
func (j *Journaled) load(ctx context.Context) error {
	return j.db.db.View(ctx, func(tx *store.Tx) error {
		err := tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) + 1 FROM devices`).Scan(&j.nextDevice)
		if err == nil {
			err = tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) + 1 FROM groups`).Scan(&j.nextGroup)
		}
		if err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `SELECT begun, heavy, mail, part, light FROM journal`).
			Scan(&j.begun, &j.marks.heavy, &j.marks.mail, &j.marks.part, &j.marks.light)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
}

// Close ends the mover and closes both. What is in the journal stays there.
func (j *Journaled) Close() error {
	j.mu.Lock()
	j.ending = true
	moving := j.moving
	j.changed.Broadcast()
	j.mu.Unlock()
	if moving {
		<-j.done
	}
	var err error
	if j.log != nil {
		err = j.log.Close()
	}
	return errors.Join(err, j.db.Close())
}

// at tells a test where the store is.
func (j *Journaled) at(step string) {
	if j.probe != nil {
		j.probe(step)
	}
}

// Tidy implements mailbox.Store. It finds out whether a disk that was full takes
// something again.
func (j *Journaled) Tidy(ctx context.Context) error {
	j.commit.Lock()
	if err := j.log.Mend(); err == nil {
		j.mu.Lock()
		j.failed = nil
		j.mu.Unlock()
	}
	j.commit.Unlock()
	if err := j.settle(ctx); err != nil {
		return err
	}
	return j.db.Tidy(ctx)
}
