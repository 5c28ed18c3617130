// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Retries are few: a statement has already waited BusyTimeout for a lock, and a
// serialization failure that repeats ten times is a hot row that wants another design.
const (
	maxAttempts = 10
	firstPause  = 2 * time.Millisecond
	longPause   = 200 * time.Millisecond
)

// Update runs f in a read-write transaction and commits it if f returns nil. Writers
// run one after another. f may be called several times.
func (db *DB) Update(ctx context.Context, f func(tx *Tx) error) error {
	return run(ctx, db.writer, f)
}

// View runs f in a read-only transaction that sees one consistent state.
func (db *DB) View(ctx context.Context, f func(tx *Tx) error) error {
	return run(ctx, db.reader, f)
}

func run(ctx context.Context, pool *sql.DB, f func(tx *Tx) error) error {
	wait := firstPause
	for attempt := 1; ; attempt++ {
		err := once(ctx, pool, f)
		if err == nil || !Retryable(err) {
			return err
		}
		if attempt == maxAttempts {
			return fmt.Errorf("store: given up after %d attempts: %w", attempt, err)
		}
		if ctxErr := pause(ctx, wait/2+rand.N(wait)); ctxErr != nil {
			return errors.Join(err, ctxErr)
		}
		wait = min(2*wait, longPause)
	}
}

func once(ctx context.Context, pool *sql.DB, f func(tx *Tx) error) error {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("store: begin: %w", err)
	}
	// After a commit this does nothing; on errors and panics it gives the connection back.
	defer func() { _ = tx.Rollback() }()
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

// Retryable reports whether the transaction that failed with err did not happen and
// may succeed unchanged: SQLITE_BUSY, SQLITE_LOCKED, or a SQLSTATE of serialization
// failure (40001) or deadlock (40P01).
func Retryable(err error) bool {
	if c, ok := sqliteCode(err); ok {
		return c == codeBusy || c == codeLocked
	}
	s := sqlState(err)
	return s == "40001" || s == "40P01"
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
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}
