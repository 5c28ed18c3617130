// SPDX-License-Identifier: Apache-2.0

// Package relay is the gateway's database: mailboxes, submission marks, groups,
// KeyPackages and the records of files. It fulfils [mailbox.Store] and is reached
// through that interface only. A gateway has a [Journaled], an SQLite file with a
// journal in front of it, or a [Shared], a database in a PostgreSQL server. A [Store]
// is the SQLite file alone: what Journaled moves its mail into, and what tests use
// whose subject is a row. One suite of tests runs on all.
//
//	s, err := relay.OpenJournaled(ctx, relay.Config{Path: "/var/lib/…/relay.db"})
//	box := mailbox.New(mailbox.Config{Store: s})
//
// One process owns an SQLite file (a lock beside it sees to that), so that the small
// rows which every message touches may be kept in memory between transactions.
// What is in memory is replaced only after the transaction that changed it has
// been synced.
//
// Never open the file for writing with another program while a gateway runs.
package relay

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ApplicationID marks the file as a gateway's ("VALG").
const ApplicationID = 0x56414c47

// ErrInUse is returned when another process has the database open.
var ErrInUse = errors.New("another gateway process has this database open: stop it first")

// A Config says which file to open and what mailboxes may hold.
type Config struct {
	Path  string
	Quota mailbox.Quota // zero fields take the package's defaults

	// Of OpenJournaled: the size of the journal's files, 0 for the journal's
	// own default, and what they are written to, nil for the operating system's disk.
	Segment int64
	Disk    journal.Disk
	probe   func(step string) // called by tests' stores after each step that a crash may follow

	// UnsafeNoSync is for the control of durability tests.
	UnsafeNoSync bool
}

// A Store is an open database.
type Store struct {
	tables
	lock *os.File
	q    statements

	// writing is held from the first read of a transaction that changes states
	// until the cache shows what it committed.
	writing sync.Mutex
	judge   judge // guarded by writing
	cache   cache
}

var _ mailbox.Store = (*Store)(nil)

// Open creates or opens the database and takes its lock. One that has a journal is
// for OpenJournaled only.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	switch _, err := s.journalID(ctx, false); {
	case err == nil:
		return nil, errors.Join(fmt.Errorf("relay store: %s: %w", cfg.Path, ErrJournaled), s.Close())
	case !errors.Is(err, sql.ErrNoRows):
		return nil, errors.Join(fmt.Errorf("relay store: %w", err), s.Close())
	}
	return s, nil
}

func openStore(ctx context.Context, cfg Config) (*Store, error) {
	lock, err := takeLock(cfg.Path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("relay store: %s: %w", cfg.Path, err)
	}
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	db, err := store.Open(ctx, store.Config{
		Path: cfg.Path, Migrations: sub, ApplicationID: ApplicationID, UnsafeNoSync: cfg.UnsafeNoSync,
	})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s := &Store{tables: tables{db: db}, lock: lock, judge: judge{quota: withDefaults(cfg.Quota)}, cache: newCache()}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("relay store: prepare statements: %w", err), s.Close())
	}
	if err := s.life(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("relay store: %w", err), s.Close())
	}
	return s, nil
}

func withDefaults(q mailbox.Quota) mailbox.Quota {
	if q.Messages == 0 {
		q.Messages = mailbox.DefaultMailboxMessages
	}
	if q.Bytes == 0 {
		q.Bytes = mailbox.DefaultMailboxBytes
	}
	if q.Packages == 0 {
		q.Packages = mailbox.DefaultPackages
	}
	return q
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}

// Close ends all connections and gives the lock back.
func (s *Store) Close() error { return errors.Join(s.db.Close(), s.lock.Close()) }

// Tidy moves the write-ahead log into the database file, off the commit path.
func (s *Store) Tidy(ctx context.Context) error {
	if err := s.tidyUrgent(ctx); err != nil {
		return err
	}
	return s.db.Checkpoint(ctx)
}

// statements of the commit path, compiled once on the writing connection.
type statements struct {
	state, saveState, remember                *sql.Stmt
	group, newGroup, stepGroup                *sql.Stmt
	putRecord, dropRecord                     *sql.Stmt
	putMessage, putPointer                    *sql.Stmt
	pointers, dropPointers, dropLast, unref   *sql.Stmt
	countPackages, putPackage, dropLastResort *sql.Stmt
	dropExpired                               *sql.Stmt
	putDevice, putState, putLife              *sql.Stmt
}

func (s *Store) prepare(ctx context.Context) error {
	var all []error
	for at, query := range map[**sql.Stmt]string{
		&s.q.state:     stateQuery,
		&s.q.saveState: `UPDATE states SET incarnation = $1, counter = $2, last = $3, acked = $4, held = $5, bytes = $6 WHERE device = $7`,
		&s.q.remember: `INSERT INTO submissions (device, slot, counter, hash) VALUES ($1, $2, $3, $4)
			ON CONFLICT (device, slot) DO UPDATE SET counter = excluded.counter, hash = excluded.hash`,
		&s.q.group:          `SELECT id, epoch FROM groups WHERE group_id = $1`,
		&s.q.newGroup:       `INSERT INTO groups (group_id, epoch, info) VALUES ($1, $2, $3) RETURNING id`,
		&s.q.stepGroup:      `UPDATE groups SET epoch = $1, info = $2 WHERE id = $3 AND epoch = $4`,
		&s.q.putRecord:      `INSERT INTO group_records (grp, key, value) VALUES ($1, $2, $3) ON CONFLICT (grp, key) DO UPDATE SET value = excluded.value`,
		&s.q.dropRecord:     `DELETE FROM group_records WHERE grp = $1 AND key = $2`,
		&s.q.putMessage:     `INSERT INTO messages (kind, grp, epoch, sender, time, refs, payload, incarnation, counter) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`,
		&s.q.putPointer:     `INSERT INTO mailbox (device, number, message) VALUES ($1, $2, $3)`,
		&s.q.pointers:       `SELECT b.message, m.refs, length(m.payload) FROM mailbox b JOIN messages m ON m.id = b.message WHERE b.device = $1 AND b.number <= $2`,
		&s.q.dropPointers:   `DELETE FROM mailbox WHERE device = $1 AND number <= $2`,
		&s.q.dropLast:       `DELETE FROM messages WHERE id = $1`,
		&s.q.unref:          `UPDATE messages SET refs = refs - 1 WHERE id = $1`,
		&s.q.countPackages:  `SELECT count(*) FROM key_packages WHERE device = $1 AND suite = $2 AND NOT last_resort AND expires > $3`,
		&s.q.putPackage:     `INSERT INTO key_packages (device, suite, last_resort, expires, package) VALUES ($1, $2, $3, $4, $5)`,
		&s.q.dropLastResort: `DELETE FROM key_packages WHERE device = $1 AND suite = $2 AND last_resort`,
		&s.q.dropExpired:    `DELETE FROM key_packages WHERE device = $1 AND expires <= $2`,
		&s.q.putDevice: `INSERT INTO devices (id, device, address, chain, seen) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (id) DO UPDATE SET address = excluded.address, chain = excluded.chain, seen = excluded.seen`,
		&s.q.putState: `INSERT INTO states (device, incarnation, counter, last, acked, held, bytes) VALUES ($1, $2, 0, $3, $3, 0, 0) ON CONFLICT DO NOTHING`,
		&s.q.putLife:  `INSERT INTO incarnations (device, incarnation, began) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
	} {
		stmt, err := s.db.Prepare(ctx, query)
		*at = stmt
		all = append(all, err)
	}
	return errors.Join(all...)
}
