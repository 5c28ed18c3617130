// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"sync"
	"testing"

	"valise/internal/testenv"
)

// one asks a flow for one number.
func one(f *Flow, query string, args ...any) (n int64, err error) {
	rows, err := f.Query(query, args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		err = rows.Scan(&n)
	}
	return n, errors.Join(err, rows.Err())
}

func countOf(t *testing.T, db *DB) (n int) {
	t.Helper()
	err := db.View(t.Context(), func(tx *Tx) error { return tx.QueryRowContext(t.Context(), "SELECT count(*) FROM parent").Scan(&n) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const addParent = "INSERT INTO parent VALUES ($1, $2, $3)"

// What waits is seen by the next question, and committed; of what fails, at whatever
// moment, nothing is.
func TestFlow(t *testing.T) {
	db := testOpen(t, testenv.Postgres(t).DSN)
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		do   func(f *Flow) error
		want func(error) bool
		rows int
	}{
		{"honest control", func(f *Flow) error {
			f.Later(addParent, 1, true, []byte("x"))
			f.Change("UPDATE parent SET ok = $1 WHERE id = $2", false, 1)
			n, err := one(f, "SELECT count(*) FROM parent WHERE NOT ok")
			if err == nil && n != 1 {
				err = errors.New("what waited was not seen")
			}
			f.Later(addParent, 2, true, []byte("x"))
			return err
		}, func(err error) bool { return err == nil }, 2},
		{"nothing at all", func(*Flow) error { return nil }, func(err error) bool { return err == nil }, 2},
		{"refused", func(f *Flow) error {
			_, err := f.Exec(addParent, 3, true, []byte("x"))
			return errors.Join(err, boom)
		}, func(err error) bool { return errors.Is(err, boom) }, 2},
		{"changes no row", func(f *Flow) error {
			f.Later(addParent, 3, true, []byte("x"))
			f.Change("UPDATE parent SET ok = $1 WHERE id = $2", true, 77)
			return nil
		}, func(err error) bool { return errors.Is(err, ErrUnchanged) }, 2},
		{"changes two rows", func(f *Flow) error {
			f.Change("UPDATE parent SET ok = $1", true)
			f.Later(addParent, 3, true, []byte("x"))
			return nil
		}, func(err error) bool { return errors.Is(err, ErrUnchanged) }, 2},
		{"exists", func(f *Flow) error {
			f.Later(addParent, 1, true, []byte("x"))
			f.Later(addParent, 3, true, []byte("x"))
			return nil
		}, IsConstraint, 2},
		{"goes on after a failure", func(f *Flow) error {
			f.Later(addParent, 1, true, []byte("x"))
			_, _ = f.Exec("SELECT 1")
			f.Later(addParent, 3, true, []byte("x"))
			return nil
		}, IsConstraint, 2},
	} {
		if err := db.UpdateFlow(t.Context(), "", c.do); !c.want(err) {
			t.Errorf("%s: got %v", c.name, err)
		}
		if n := countOf(t, db); n != c.rows {
			t.Errorf("%s: %d rows, want %d", c.name, n, c.rows)
		}
	}
	if n := db.writer.Stats().InUse; n != 0 {
		t.Errorf("%d connections were not given back", n)
	}
}

// A panic gives the connection back, without its transaction.
func TestFlowPanics(t *testing.T) {
	db := testOpen(t, testenv.Postgres(t).DSN)
	func() {
		defer func() { _ = recover() }()
		_ = db.UpdateFlow(t.Context(), "parent", func(f *Flow) error {
			if _, err := f.Exec(addParent, 1, true, []byte("x")); err != nil {
				t.Error(err)
			}
			panic("boom")
		})
	}()
	if err := db.UpdateFlow(t.Context(), "parent", func(f *Flow) error { _, err := f.Exec("SELECT 1"); return err }); err != nil {
		t.Error(err)
	}
	if n := countOf(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// A connection that ends between two flows is replaced without an error, whether the
// flow asks first or only writes.
func TestFlowFindsAnotherConnection(t *testing.T) {
	server := testenv.Postgres(t)
	db := testOpen(t, server.DSN)
	for id, do := range []func(f *Flow) error{
		func(f *Flow) error { f.Later(addParent, 0, true, []byte("x")); return nil },
		func(f *Flow) error { _, err := f.Exec(addParent, 1, true, []byte("x")); return err },
	} {
		if err := db.UpdateFlow(t.Context(), "", func(f *Flow) error { _, err := f.Exec("SELECT 1"); return err }); err != nil {
			t.Fatal(err)
		}
		server.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+server.Name+"'")
		if err := db.UpdateFlow(t.Context(), "", do); err != nil {
			t.Error(id, err)
		}
		if n := countOf(t, db); n != id+1 {
			t.Errorf("%d rows, want %d", n, id+1)
		}
	}
}

// Flows are serializable: two that read what the other writes do not both come to
// pass unseen, and behind a lock they follow each other.
func TestFlowsAreSerializable(t *testing.T) {
	db := testOpen(t, testenv.Postgres(t).DSN)
	const workers, rounds = 4, 8
	next := func(f *Flow) error {
		n, err := one(f, "SELECT coalesce(max(id), 0) + 1 FROM parent")
		f.Later(addParent, n, true, []byte("x"))
		return err
	}
	for i, table := range []string{"", "valise_database"} {
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range rounds {
					err := db.UpdateFlow(context.WithoutCancel(t.Context()), table, next)
					for IsConstraint(err) || Retryable(err) {
						err = db.UpdateFlow(context.WithoutCancel(t.Context()), table, next)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := countOf(t, db); n != (i+1)*workers*rounds {
			t.Errorf("%d rows", n)
		}
	}
}
