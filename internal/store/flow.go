// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

// A Flow is a transaction on PostgreSQL in which a statement that needs no answer waits
// for the next one that does, and all of them reach the server together: what a
// transaction costs is, most of all, the times that one side waits for the other.
// Statements run in the order in which they were given, and none after one that failed.
//
// A Flow must not outlive the function that it is given to.
type Flow struct {
	ctx     context.Context
	conn    *pgx.Conn
	waiting []waiting
	begun   bool  // the server has answered that there is a transaction
	whole   bool  // all of it may go out together, the commit too
	failed  error // of a statement that waited: nothing is sent after it
}

// waiting is a statement that was not sent yet.
type waiting struct {
	sql    string
	args   []any
	each   func(scan func(...any) error) error // takes the rows; nil: there are none
	change bool                                // it must change exactly one row
	demand error                               // what is returned if it does not, or breaks a constraint; nil: what it fails with
}

// ErrUnchanged is returned when a statement given to Flow.Change did not change
// exactly one row.
var ErrUnchanged = errors.New("store: not exactly one row was changed")

// Exec runs a statement and returns how many rows it changed.
func (f *Flow) Exec(query string, args ...any) (int64, error) {
	rows, err := f.Query(query, args...)
	if err != nil {
		return 0, err
	}
	rows.Close()
	return rows.CommandTag().RowsAffected(), rows.Err()
}

// Later has a statement run before the next one that is waited for, or before the
// commit. What it fails with comes back there.
func (f *Flow) Later(query string, args ...any) {
	f.waiting = append(f.waiting, waiting{sql: query, args: args})
}

// LaterRows is Later for a statement that answers with rows. each is called for every
// one, before that returns which the statement waits for.
func (f *Flow) LaterRows(each func(scan func(...any) error) error, query string, args ...any) {
	f.waiting = append(f.waiting, waiting{sql: query, args: args, each: each})
}

// Settle has what waits run now: it is for statements whose rows are needed.
func (f *Flow) Settle() error {
	for _, w := range f.waiting {
		if w.each != nil {
			rows, err := f.Query("SELECT 1")
			if err == nil {
				rows.Close()
				err = rows.Err()
			}
			return err
		}
	}
	return f.failed
}

// take reads the answer to a statement that waited.
func (w *waiting) take(results pgx.BatchResults) error {
	if w.each == nil {
		_, err := results.Exec()
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := w.each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Change is Later for a statement that must change exactly one row: if it does not,
// what waits for it fails with ErrUnchanged, and nothing is committed. The statement
// must not have a RETURNING clause.
func (f *Flow) Change(query string, args ...any) { f.Demand(nil, query, args...) }

// Demand is Change that fails with refusal, if that is not nil, when it does not change
// exactly one row or would violate a constraint: among statements that wait together,
// it says which one it was.
func (f *Flow) Demand(refusal error, query string, args ...any) {
	// Division by zero is how a statement fails by itself.
	query = "WITH changed AS (" + query + " RETURNING 1) SELECT 1 / CAST(count(*) = 1 AS INTEGER) FROM changed"
	f.waiting = append(f.waiting, waiting{sql: query, args: args, change: true, demand: refusal})
}

// Query runs a statement, behind those that wait for it. The rows must be closed, or
// read to their end, before anything else is asked.
func (f *Flow) Query(query string, args ...any) (pgx.Rows, error) {
	if f.failed != nil {
		return nil, f.failed
	}
	if len(f.waiting) == 0 {
		return f.conn.Query(f.ctx, query, args...)
	}
	batch := new(pgx.Batch)
	for _, w := range f.waiting {
		batch.Queue(w.sql, w.args...)
	}
	batch.Queue(query, args...)
	results := f.conn.SendBatch(f.ctx, batch)
	for i, w := range f.waiting {
		err := w.take(results)
		if err == nil {
			f.begun = f.begun || i == 0
			continue
		}
		_ = results.Close() // says the same
		if w.change && sqlState(err) == divisionByZero {
			err = ErrUnchanged
		}
		if w.demand != nil && (errors.Is(err, ErrUnchanged) || IsConstraint(err)) {
			err = w.demand
		}
		f.failed = err
		return nil, err
	}
	f.waiting = f.waiting[:0]
	rows, err := results.Query()
	if err != nil {
		return nil, errors.Join(err, results.Close())
	}
	return &flowRows{Rows: rows, results: results}, nil
}

// flowRows are the last of some answers.
type flowRows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error // of the end of the answers
}

func (r *flowRows) Next() bool {
	more := r.Rows.Next()
	if !more {
		r.Close()
	}
	return more
}

func (r *flowRows) Close() {
	r.Rows.Close()
	if r.results != nil {
		r.err, r.results = r.results.Close(), nil
	}
}

func (r *flowRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

const divisionByZero = "22012"

// IsDivisionByZero reports whether PostgreSQL refused a division by zero, which is how a
// statement fails by itself.
func IsDivisionByZero(err error) bool { return sqlState(err) == divisionByZero }

// UpdateFlow is Update, or with a table's name UpdateLocked, on PostgreSQL alone.
func (db *DB) UpdateFlow(ctx context.Context, table string, f func(*Flow) error) error {
	if db.dialect != PostgreSQL {
		return errors.New("store: only PostgreSQL has flows")
	}
	options, attempt := db.writing(), 0
	return db.retry(ctx, func() error {
		attempt++
		return db.flow(ctx, "SERIALIZABLE", db.locks(attempt, options, lockOf(table)), f)
	}, func(error) bool { return false })
}

// UpdateRows is UpdateFlow for transactions that lock the rows on which they decide
// (SELECT … ORDER BY … FOR UPDATE) before they read anything else: such ones wait for
// each other where a serializable one would fail and begin anew. Each statement sees
// what was committed before it; whoever reads before it has locked decides on sand. With
// repeat it is run once more where it is not known whether it has happened, and has to find
// out by itself.
func (db *DB) UpdateRows(ctx context.Context, repeat bool, f func(*Flow) error) error {
	if db.dialect != PostgreSQL {
		return errors.New("store: only PostgreSQL has flows")
	}
	return db.retry(ctx, func() error { return db.flow(ctx, "READ COMMITTED", nil, f) }, func(err error) bool { return repeat && lost(err) })
}

// flow runs f once.
func (db *DB) flow(ctx context.Context, isolation string, locks []string, f func(*Flow) error) error {
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return &beginError{err}
	}
	// The error is Raw's, too; a connection that is of no use any more is found out when it is asked for again.
	defer func() { _ = conn.Close() }()
	return raw(conn, func(c *pgx.Conn) error {
		flow := &Flow{ctx: ctx, conn: c}
		flow.Later("BEGIN ISOLATION LEVEL " + isolation)
		for _, lock := range locks {
			flow.Later(lock)
		}
		return flow.run(f)
	})
}

// raw calls f with the driver's connection.
func raw(conn *sql.Conn, f func(*pgx.Conn) error) error {
	return conn.Raw(func(driver any) error {
		c, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("store: the driver's connection is a %T", driver)
		}
		return f(c.Conn())
	})
}

// UpdateOn is UpdateRows on the connection that held returns, one of Hold: what runs on
// it runs under its lock, without asking, and so no row has to be locked against those
// who ask for the same lock. A transaction that asks nothing is sent as a whole, with its
// commit: when the connection ends meanwhile, it may have happened. With repeat it is run
// once more then, and has to find out by itself.
func (db *DB) UpdateOn(ctx context.Context, held func(context.Context) (*sql.Conn, error), repeat bool, f func(*Flow) error) error {
	return db.retry(ctx, func() error {
		conn, err := held(ctx)
		if err != nil {
			return err
		}
		return raw(conn, func(c *pgx.Conn) error {
			flow := &Flow{ctx: ctx, conn: c, whole: true}
			flow.Later("BEGIN ISOLATION LEVEL READ COMMITTED")
			return flow.run(f)
		})
	}, func(err error) bool { return repeat && lost(err) })
}

// Alive reports whether a connection of Hold has not ended, as far as is known without
// asking the server.
func Alive(conn *sql.Conn) bool {
	alive := false
	err := raw(conn, func(c *pgx.Conn) error {
		alive = !c.IsClosed()
		return nil
	})
	return err == nil && alive
}

func (f *Flow) run(do func(*Flow) error) (err error) {
	done := false
	defer func() { // also when do panics
		if !done {
			f.rollback()
		}
	}()
	err = do(f)
	if err == nil && !f.begun && !f.whole {
		// A transaction that is sent as a whole may have happened, or not, when the
		// connection ends; so the commit is never sent with the beginning.
		_, err = f.Exec("SELECT 1")
	}
	if err != nil && !f.begun && lost(f.failed) {
		return &beginError{err} // nothing has happened
	}
	if err != nil {
		return err
	}
	rows, err := f.Query("COMMIT")
	if err != nil {
		return fmt.Errorf("store: commit: %w", err)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return fmt.Errorf("store: commit: %w", err)
	}
	done = true
	if tag := rows.CommandTag().String(); tag != "COMMIT" {
		return fmt.Errorf("store: commit: the server answers %s", tag)
	}
	return nil
}

// Rows are the answer to one statement on PostgreSQL.
type Rows = pgx.Rows

// Borrowed takes bytes of a row without a copy: they are there until the next row is
// asked for.
type Borrowed = pgtype.DriverBytes

// Look asks PostgreSQL one question, without a transaction: what one statement sees is
// one state. f reads the rows, and may be called again.
func (db *DB) Look(ctx context.Context, f func(Rows) error, query string, args ...any) error {
	if db.dialect != PostgreSQL {
		return errors.New("store: only PostgreSQL is looked at without a transaction")
	}
	return db.retry(ctx, func() error {
		conn, err := db.reader.Conn(ctx)
		if err != nil {
			return &beginError{err}
		}
		defer func() { _ = conn.Close() }()
		return raw(conn, func(c *pgx.Conn) error {
			rows, err := c.Query(ctx, query, args...)
			if err != nil {
				return err
			}
			defer rows.Close()
			return f(rows)
		})
	}, lost)
}

// A Question is a statement and what reads its first row: Row is called in every
// attempt, and scan returns sql.ErrNoRows if there is none.
type Question struct {
	SQL  string
	Args []any
	Row  func(scan func(...any) error) error
}

// Ask puts questions to PostgreSQL together: one transaction, in which each sees what
// the ones before it did, and that is over with the answer. As with Write, it may run a
// second time although it did happen.
func (db *DB) Ask(ctx context.Context, questions ...Question) error {
	if db.dialect != PostgreSQL {
		return errors.New("store: only PostgreSQL is asked several questions at once")
	}
	return db.retry(ctx, func() error {
		conn, err := db.writer.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		return raw(conn, func(c *pgx.Conn) error { return ask(ctx, c, questions) })
	}, lost)
}

func ask(ctx context.Context, conn *pgx.Conn, questions []Question) error {
	batch := new(pgx.Batch)
	for _, q := range questions {
		batch.Queue(q.SQL, q.Args...)
	}
	results := conn.SendBatch(ctx, batch)
	for _, q := range questions {
		rows, err := results.Query()
		if err != nil {
			_ = results.Close() // says the same
			return err
		}
		scan := rows.Scan
		if !rows.Next() {
			scan = func(...any) error { return sql.ErrNoRows }
		}
		if err = rows.Err(); err == nil {
			err = q.Row(scan)
		}
		rows.Close()
		if err = errors.Join(err, rows.Err()); err != nil {
			_ = results.Close()
			return err
		}
	}
	return results.Close()
}

// rollback ends the transaction, or else the connection, and with it the locks.
func (f *Flow) rollback() {
	if f.conn.IsClosed() || f.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), connectTimeout)
	defer cancel()
	if _, err := f.conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = f.conn.Close(ctx)
	}
}
