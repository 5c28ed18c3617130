// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
)

// Statements runs SQL: a Tx does, and what Read and Write give out.
type Statements interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// Read runs f with statements that are each a transaction of their own: two of them
// may see different states. For one statement it is View without the two round trips
// to the database that begin and end a transaction.
func (db *DB) Read(ctx context.Context, f func(s Statements) error) error {
	return db.retry(ctx, func() error { return f(db.reader) }, lost)
}

// Write is Read for a statement that changes something and reads nothing that another
// transaction may change meanwhile. It may run a second time although it did happen,
// when the connection ended before the answer came.
func (db *DB) Write(ctx context.Context, f func(s Statements) error) error {
	return db.retry(ctx, func() error { return f(db.writer) }, lost)
}

// retry runs f until it succeeds or another attempt is of no use. more names further
// errors after which it is.
func (db *DB) retry(ctx context.Context, f func() error, more func(error) bool) error {
	wait := firstPause
	for attempt := 1; ; attempt++ {
		before := db.unconfirmed()
		err := f()
		if db.unconfirmed() != before {
			err = errors.Join(ErrUnconfirmed, err)
		}
		if err == nil || !again(err, attempt) && !more(err) {
			return err
		}
		if attempt == maxAttempts {
			return givenUp(attempt, err)
		}
		db.retries.Add(1)
		if ctxErr := pause(ctx, jitter(wait)); ctxErr != nil {
			return errors.Join(err, ctxErr)
		}
		wait = min(2*wait, longPause)
	}
}

// unconfirmed counts the commits that were reported although no standby had confirmed them.
func (db *DB) unconfirmed() int64 {
	if db.servers == nil {
		return 0
	}
	return db.servers.cancelled.Load()
}
