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
// A method that looks one thing up returns ErrNotFound when there is none. Methods
// that change a state name the state that they expect, and return ErrState when
// another request was faster; that is what makes things single-use.
//
// Never call an HSM, a card or the network inside Update.
package authority

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
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
	secret [32]byte // authenticates nonces; the same for all processes on this database
}

// A Tx is a running transaction. It must not outlive the function it is given to.
type Tx struct {
	ctx     context.Context
	tx      *store.Tx
	recover bool // FlagRestored does not stop it
}

// Open opens or creates the database file.
func Open(ctx context.Context, path string) (*Store, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{Path: path, Migrations: sub, ApplicationID: applicationID, SecureDelete: true})
	if err != nil {
		return nil, err
	}
	s := &Store{db: db}
	secret, err := s.constant(ctx, "nonce-secret")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	copy(s.secret[:], secret)
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Update runs f in a serialized read-write transaction; f may run several times.
func (s *Store) Update(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.Update(ctx, func(tx *store.Tx) error { return f(&Tx{ctx: ctx, tx: tx}) })
}

// Recover is Update for taking in what a restored backup does not know: FlagRestored
// does not stop it. Whoever has taken in everything clears the flag.
func (s *Store) Recover(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.Update(ctx, func(tx *store.Tx) error { return f(&Tx{ctx: ctx, tx: tx, recover: true}) })
}

// View runs f on one consistent state.
func (s *Store) View(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.View(ctx, func(tx *store.Tx) error { return f(&Tx{ctx: ctx, tx: tx}) })
}

// constant returns 32 random bytes that are drawn once in the database's life.
func (s *Store) constant(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.Update(ctx, func(tx *Tx) error {
		fresh := make([]byte, 32)
		rand.Read(fresh)
		if err := tx.exec("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", name, fresh); err != nil {
			return err
		}
		return tx.row("SELECT value FROM meta WHERE name = $1", name)(&value)
	})
	if err == nil && len(value) != 32 {
		err = fmt.Errorf("authority: %s is damaged", name)
	}
	return value, err
}

func (tx *Tx) exec(query string, args ...any) error {
	_, err := tx.tx.ExecContext(tx.ctx, query, args...)
	return wrap(err)
}

// change is exec for a statement that must change exactly one row.
func (tx *Tx) change(query string, args ...any) error {
	res, err := tx.tx.ExecContext(tx.ctx, query, args...)
	if err != nil {
		return wrap(err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(ErrState, err)
	}
	return nil
}

func (tx *Tx) row(query string, args ...any) func(into ...any) error {
	return func(into ...any) error {
		return wrap(tx.tx.QueryRowContext(tx.ctx, query, args...).Scan(into...))
	}
}

// each calls f for every row of the query.
func (tx *Tx) each(f func(scan func(...any) error) error, query string, args ...any) error {
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

func wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
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
