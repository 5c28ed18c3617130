// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Retries are few: a statement has already waited BusyTimeout for a lock, and a
// serialization failure that repeats ten times is a hot row that wants another design.
const (
	maxAttempts = 10
	firstPause  = 2 * time.Millisecond
	longPause   = 200 * time.Millisecond
)

// Update runs f in a serializable read-write transaction and commits it if f returns
// nil. f may be called several times.
func (db *DB) Update(ctx context.Context, f func(tx *Tx) error) error {
	return db.run(ctx, db.writer, db.writing(), "", f)
}

// UpdateLocked is Update for transactions that would otherwise always be in each
// other's way, such as those that append to one sequence: they run one after the
// other, behind a lock on a table that nothing else touches. The table's name is
// part of the program. On SQLite, where all writers do, it is Update.
//
// The lock comes before the transaction's snapshot is taken, so that the one who
// waited sees what the others did; a row locked inside the transaction would end it
// with a serialization failure instead.
func (db *DB) UpdateLocked(ctx context.Context, table string, f func(tx *Tx) error) error {
	lock := ""
	if db.dialect == PostgreSQL {
		lock = lockOf(table)
	}
	return db.run(ctx, db.writer, db.writing(), lock, f)
}

// lockOf is the statement that locks a table; of none, there is none.
func lockOf(table string) string {
	if table == "" {
		return ""
	}
	return "LOCK TABLE " + table + " IN EXCLUSIVE MODE"
}

// View runs f in a read-only transaction that sees one consistent state.
func (db *DB) View(ctx context.Context, f func(tx *Tx) error) error {
	var options *sql.TxOptions
	if db.dialect == PostgreSQL {
		options = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	return db.run(ctx, db.reader, options, "", f)
}

func (db *DB) writing() *sql.TxOptions {
	if db.dialect == PostgreSQL {
		return &sql.TxOptions{Isolation: sql.LevelSerializable}
	}
	return nil
}

// Observe has each transaction told, with its kind and how long it took, retries and
// waiting for locks included. It is called before the database is used.
func (db *DB) Observe(told func(write bool, took time.Duration)) { db.observe = told }

func (db *DB) run(ctx context.Context, pool *sql.DB, options *sql.TxOptions, lock string, f func(tx *Tx) error) error {
	if db.observe != nil {
		began := time.Now()
		defer func() {
			db.observe(options == nil && pool == db.writer || options != nil && !options.ReadOnly, time.Since(began))
		}()
	}
	attempt := 0
	return db.retry(ctx, func() error {
		attempt++
		return once(ctx, pool, options, db.locks(attempt, options, lock), f)
	}, func(error) bool { return false })
}

// Many transactions at once may fail for each other again and again: PostgreSQL finds
// conflicts by the page, and a small table is one page. From this attempt on, a
// transaction queues up with the others that have failed.
const queueFrom = 2

// queue is a table of ours that nothing else locks.
const queue = "LOCK TABLE valise_database IN EXCLUSIVE MODE"

// locks are the statements that an attempt begins with. The queue comes first for all,
// so that nobody who holds another lock waits for it.
func (db *DB) locks(attempt int, options *sql.TxOptions, lock string) []string {
	var all []string
	if db.dialect == PostgreSQL && attempt >= queueFrom && !options.ReadOnly {
		all = append(all, queue)
	}
	if lock != "" {
		all = append(all, lock)
	}
	return all
}

func givenUp(attempts int, err error) error {
	return fmt.Errorf("store: given up after %d attempts: %w", attempts, err)
}

func jitter(wait time.Duration) time.Duration { return wait/2 + rand.N(wait) }

// again reports whether another attempt is worth it. PostgreSQL may report a unique
// constraint for what is a race between two serializable transactions (both took the
// same next number): if it is more than that, it comes back.
func again(err error, attempt int) bool {
	var begin *beginError
	return Retryable(err) || errors.As(err, &begin) && lost(err) || attempt == 1 && sqlState(err) == uniqueViolation
}

// lost reports whether a connection that once stood has ended, because the server
// was started anew or left behind, or what was done there is not to be built upon. That it cannot be reached is another matter, and waits for nobody.
func lost(err error) bool {
	var connect *pgconn.ConnectError
	var network *net.OpError
	s := sqlState(err)
	return s == adminShutdown || s == crashShutdown || errors.Is(err, ErrUnconfirmed) ||
		!errors.As(err, &connect) && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.As(err, &network))
}

// A beginError says that f did not run.
type beginError struct{ err error }

func (e *beginError) Error() string { return "store: begin: " + e.err.Error() }
func (e *beginError) Unwrap() error { return e.err }

func once(ctx context.Context, pool *sql.DB, options *sql.TxOptions, locks []string, f func(tx *Tx) error) error {
	tx, err := pool.BeginTx(ctx, options)
	if err != nil {
		return &beginError{err}
	}
	// After a commit this does nothing; on errors and panics it gives the connection back.
	defer func() { _ = tx.Rollback() }()
	for _, lock := range locks {
		if _, err := tx.ExecContext(ctx, lock); err != nil {
			return fmt.Errorf("store: lock: %w", err)
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("store: commit: %w", err)
	}
	return nil
}

// Primary result codes of SQLite (https://sqlite.org/rescode.html); the extended
// code's low byte is the primary one.
const (
	codeBusy       = 5
	codeLocked     = 6
	codeConstraint = 19
)

// SQLSTATEs of PostgreSQL (its documentation, Appendix A).
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	uniqueViolation      = "23505"
	adminShutdown        = "57P01"
	crashShutdown        = "57P02"
)

// Retryable reports whether the transaction that failed with err did not happen and
// may succeed unchanged: SQLITE_BUSY, SQLITE_LOCKED, or a SQLSTATE of serialization
// failure or deadlock.
func Retryable(err error) bool {
	if c, ok := sqliteCode(err); ok {
		return c == codeBusy || c == codeLocked
	}
	s := sqlState(err)
	return s == serializationFailure || s == deadlockDetected
}

// IsConstraint reports whether err says that a constraint (unique, foreign key,
// check, not null) was violated.
func IsConstraint(err error) bool {
	if c, ok := sqliteCode(err); ok {
		return c == codeConstraint
	}
	s := sqlState(err)
	return len(s) == 5 && s[:2] == "23"
}

func sqliteCode(err error) (int, bool) {
	var e interface {
		error
		Code() int
	}
	if errors.As(err, &e) {
		return e.Code() & 0xff, true
	}
	return 0, false
}

func sqlState(err error) string {
	var e interface {
		error
		SQLState() string
	}
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}
