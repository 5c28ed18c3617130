// SPDX-License-Identifier: Apache-2.0

// Package authority is the enrollment authority's database: its schema and the
// questions asked of it. It decides nothing; package enroll does.
//
// Open it, then do everything inside Update and View:
//
//	s, err := authority.Open(ctx, "/var/lib/valise/authority.db")
//	err = s.Update(ctx, func(tx *authority.Tx) error {
//		person, err := tx.Person(address)
//		…
//	})
//
// The same tables stand in an SQLite file or in a PostgreSQL database, which several
// processes may use at once. Whoever appends to the ledger says so with Append in
// place of Update; an Update that does so all the same is run a second time.
//
// A method that looks one thing up returns ErrNotFound when there is none. Methods
// that change a state name the state that they expect, and return ErrState when
// another request was faster; that is what makes things single-use.
//
// Never call an HSM, a card or the network inside Update.
package authority

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"valise/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks the file as an authority's ("VAau").
const applicationID = 0x56416175

// Errors that callers act on.
var (
	ErrNotFound = errors.New("authority: no such record")
	ErrState    = errors.New("authority: the record is in another state")
	ErrExists   = errors.New("authority: there is such a record already")
	ErrRestored = errors.New("authority: restored from a backup and read-only until a gateway has told what the backup does not know")
)

// A Store is the open database. Its methods may be called by any goroutine.
type Store struct {
	db     *store.DB
	nonces atomic.Pointer[nonceState]
}

// A Tx is a running transaction. It must not outlive the function it is given to.
type Tx struct {
	ctx     context.Context
	tx      store.Statements // or
	flow    *store.Flow
	later   bool // nobody waits for what a change brings
	appends bool // the ledger's lock is held
	recover bool // FlagRestored does not stop it
	loose   bool // each question sees its own moment: nothing is kept between them

	// What this transaction has been told, or has done, and so need not ask again.
	writable bool
	tail     *tail
}

// Open opens or creates the database: an SQLite file, or one in a PostgreSQL server
// by its connection string.
func Open(ctx context.Context, database string) (*Store, error) {
	return open(ctx, database, store.Either)
}

// OpenExisting opens the database, and never makes an empty one in the place of one
// that is lost: roster and ledger would begin anew under the same root.
func OpenExisting(ctx context.Context, database string) (*Store, error) {
	return open(ctx, database, store.Existing)
}

// Create makes the database, and refuses where there is one.
func Create(ctx context.Context, database string) (*Store, error) {
	return open(ctx, database, store.Fresh)
}

// Vacant reports, as an error, that there is a database already, or that there
// cannot be one.
func Vacant(ctx context.Context, database string) error {
	s, err := OpenExisting(ctx, database)
	switch {
	case errors.Is(err, store.ErrMissing):
		return nil
	case err != nil:
		return err
	}
	return errors.Join(store.ErrPresent, s.Close())
}

func open(ctx context.Context, database string, expect store.Expectation) (*Store, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{
		Path: database, Migrations: sub, ApplicationID: applicationID, SecureDelete: true, Expect: expect,
	})
	if err != nil {
		return nil, err
	}
	s := &Store{db: db}
	if err := s.loadNonces(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Observe has each transaction told, with its kind and how long it took. It is called
// before the store is used by several goroutines.
func (s *Store) Observe(told func(write bool, took time.Duration)) { s.db.Observe(told) }

// Retries returns how many transactions had to be run once more since Open.
func (s *Store) Retries() int64 { return s.db.Retries() }

// Update runs f in a serializable read-write transaction; f may run several times.
func (s *Store) Update(ctx context.Context, f func(tx *Tx) error) error {
	if s.db.Dialect() == store.SQLite {
		return s.db.Update(ctx, func(tx *store.Tx) error { return f(&Tx{ctx: ctx, tx: tx, appends: true}) })
	}
	err := s.flow(ctx, "", f)
	if errors.Is(err, errAppends) {
		return s.Append(ctx, f)
	}
	return err
}

// Append is Update for transactions that append to the ledger. They run one after the
// other, whichever process they belong to, and see what those before them did.
func (s *Store) Append(ctx context.Context, f func(tx *Tx) error) error {
	if s.db.Dialect() == store.PostgreSQL {
		return s.flow(ctx, ledgerLock, f)
	}
	return s.db.UpdateLocked(ctx, ledgerLock, func(tx *store.Tx) error { return f(&Tx{ctx: ctx, tx: tx, appends: true}) })
}

// flow runs a transaction on PostgreSQL. With the ledger's lock it may append.
func (s *Store) flow(ctx context.Context, lock string, f func(tx *Tx) error) error {
	err := s.db.UpdateFlow(ctx, lock, func(flow *store.Flow) error { return f(&Tx{ctx: ctx, flow: flow, appends: lock != ""}) })
	if errors.Is(err, store.ErrUnchanged) || store.IsConstraint(err) && !errors.Is(err, ErrExists) {
		err = wrap(err) // of a change that was made later
	}
	return err
}

// Recover is Append for taking in what a restored backup does not know: FlagRestored
// does not stop it. Whoever has taken in everything clears the flag.
func (s *Store) Recover(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.UpdateLocked(ctx, ledgerLock, func(tx *store.Tx) error {
		return f(&Tx{ctx: ctx, tx: tx, appends: true, recover: true})
	})
}

// ledgerLock is the table that Append locks.
const ledgerLock = "ledger_lock"

// errAppends makes Update begin anew behind the ledger's lock.
var errAppends = errors.New("authority: an append outside of Append")

// View runs f on one consistent state.
func (s *Store) View(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.View(ctx, func(tx *store.Tx) error { return f(&Tx{ctx: ctx, tx: tx}) })
}

// Read runs f with questions that are each answered as of their own moment. For a
// single question it is a cheaper View.
func (s *Store) Read(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.Read(ctx, func(q store.Statements) error { return f(&Tx{ctx: ctx, tx: q, loose: true}) })
}

// write runs one statement that is a transaction by itself.
func (s *Store) write(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.Write(ctx, func(q store.Statements) error { return f(&Tx{ctx: ctx, tx: q, loose: true}) })
}

// Later returns a Tx whose changes are made when the transaction asks or ends next,
// with what else there is to do then: what they fail with, such as ErrState, is
// returned there, at the latest by Update or Append. For questions there is no later.
func (tx *Tx) Later() *Tx {
	later := *tx
	later.later = true
	return &later
}

func (tx *Tx) exec(query string, args ...any) error {
	switch {
	case tx.flow == nil:
		_, err := tx.tx.ExecContext(tx.ctx, query, args...)
		return wrap(err)
	case tx.later:
		tx.flow.Later(query, args...)
		return nil
	}
	_, err := tx.flow.Exec(query, args...)
	return wrap(err)
}

// change is exec for a statement that must change exactly one row.
func (tx *Tx) change(query string, args ...any) error {
	if tx.flow != nil && tx.later {
		tx.flow.Change(query, args...)
		return nil
	}
	n, err := tx.changed(query, args...)
	if err == nil && n != 1 {
		err = ErrState
	}
	return wrap(err)
}

func (tx *Tx) changed(query string, args ...any) (int64, error) {
	if tx.flow != nil {
		return tx.flow.Exec(query, args...)
	}
	res, err := tx.tx.ExecContext(tx.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (tx *Tx) row(query string, args ...any) func(into ...any) error {
	return func(into ...any) error {
		if tx.flow == nil {
			return wrap(tx.tx.QueryRowContext(tx.ctx, query, args...).Scan(into...))
		}
		rows, err := tx.flow.Query(query, args...)
		if err != nil {
			return wrap(err)
		}
		defer rows.Close()
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return wrap(err)
			}
			return ErrNotFound
		}
		if err := rows.Scan(into...); err != nil {
			return wrap(err)
		}
		rows.Close()
		return wrap(rows.Err())
	}
}

// each calls f for every row of the query.
func (tx *Tx) each(f func(scan func(...any) error) error, query string, args ...any) error {
	if tx.flow != nil {
		return tx.eachOf(f, query, args...)
	}
	rows, err := tx.tx.QueryContext(tx.ctx, query, args...)
	if err != nil {
		return wrap(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return wrap(rows.Err())
}

func (tx *Tx) eachOf(f func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := tx.flow.Query(query, args...)
	if err != nil {
		return wrap(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return wrap(rows.Err())
}

func wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.Is(err, ErrState), errors.Is(err, store.ErrUnchanged):
		return ErrState
	case store.IsConstraint(err):
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return fmt.Errorf("authority: %w", err)
}

func unix(t time.Time) int64 { return t.Unix() }

func fromUnix(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}
