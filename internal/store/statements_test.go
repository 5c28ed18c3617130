// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
)

// kept counts the compiled statements of the writer's connection.
func (db *DB) kept(t testing.TB) (n int) {
	t.Helper()
	conn, err := db.writer.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	err = conn.Raw(func(c any) error {
		n = len(c.(*keeper).kept)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func numbered(t testing.TB) *DB {
	t.Helper()
	db := testOpen(t, filepath.Join(t.TempDir(), "x.db"))
	err := db.Update(t.Context(), func(tx *Tx) error {
		if _, err := tx.ExecContext(t.Context(), "CREATE TABLE numbers (n INTEGER PRIMARY KEY, name TEXT) STRICT"); err != nil {
			return err
		}
		for n := range 10 {
			if err := exec(t.Context(), "INSERT INTO numbers (n, name) VALUES ($1, $2)", n, fmt.Sprint("name", n))(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// A statement that is running is not run a second time by whoever uses the same text
// inside its loop.
func TestSameStatementInsideItself(t *testing.T) {
	db := numbered(t)
	const query = "SELECT n FROM numbers WHERE n >= $1 ORDER BY n"
	for range 2 {
		err := db.Update(t.Context(), func(tx *Tx) error {
			outer, err := tx.QueryContext(t.Context(), query, 0)
			if err != nil {
				return err
			}
			defer func() { _ = outer.Close() }()
			seen := 0
			for ; outer.Next(); seen++ {
				var n, first int
				if err := outer.Scan(&n); err != nil {
					return err
				}
				if err := tx.QueryRowContext(t.Context(), query, 5).Scan(&first); err != nil {
					return err
				}
				if n != seen || first != 5 {
					t.Errorf("row %d is %d, and inside it %d", seen, n, first)
				}
			}
			if seen != 10 {
				t.Errorf("%d rows", seen)
			}
			return outer.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A statement that failed, or whose table has changed, works the next time.
func TestKeptStatementGoesOn(t *testing.T) {
	db := numbered(t)
	const insert = "INSERT INTO numbers (n, name) VALUES ($1, $2)"
	if err := db.Update(t.Context(), exec(t.Context(), insert, 3, "again")); err == nil {
		t.Fatal("the same number twice")
	}
	const read = "SELECT * FROM numbers WHERE n = $1"
	columns := func() int {
		n := 0
		err := db.Update(t.Context(), func(tx *Tx) error {
			rows, err := tx.QueryContext(t.Context(), read, 11)
			if err != nil {
				return err
			}
			names, err := rows.Columns()
			n = len(names)
			return errors.Join(err, rows.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := db.Update(t.Context(), exec(t.Context(), insert, 11, "eleven")); err != nil {
		t.Fatal(err)
	}
	if n := columns(); n != 2 {
		t.Errorf("%d columns", n)
	}
	before := db.kept(t)
	if before == 0 {
		t.Error("no statement is kept")
	}
	if err := db.Update(t.Context(), exec(t.Context(), "ALTER TABLE numbers ADD COLUMN note TEXT")); err != nil {
		t.Fatal(err)
	}
	if n := columns(); n != 3 {
		t.Errorf("%d columns after one more was added", n)
	}
	if n := db.kept(t); n != before {
		t.Errorf("%d statements are kept, before %d", n, before)
	}
}

// Texts without end do not fill the memory.
func TestKeptStatementsAreBounded(t *testing.T) {
	db := numbered(t)
	err := db.Update(t.Context(), func(tx *Tx) error {
		for n := range maxKept + 50 {
			var got int
			if err := tx.QueryRowContext(t.Context(), fmt.Sprintf("SELECT n + %d FROM numbers WHERE n = $1", n), 1).Scan(&got); err != nil || got != n+1 {
				return fmt.Errorf("%d: %w", got, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := db.kept(t); n != maxKept {
		t.Errorf("%d statements are kept, at most %d should be", n, maxKept)
	}
}

// A context that ends in the middle leaves nothing half done behind.
func TestKeptStatementAfterCancel(t *testing.T) {
	db := numbered(t)
	const query = "WITH RECURSIVE up(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM up) SELECT count(*) FROM up WHERE n < 0"
	ctx, cancel := context.WithCancel(t.Context())
	err := db.View(ctx, func(tx *Tx) error {
		cancel()
		return tx.QueryRowContext(ctx, query, 1).Scan(new(int))
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	var name string
	err = db.View(t.Context(), func(tx *Tx) error {
		return tx.QueryRowContext(t.Context(), "SELECT name FROM numbers WHERE n = $1", 4).Scan(&name)
	})
	if err != nil || name != "name4" {
		t.Errorf("%q, %v", name, err)
	}
	err = db.View(t.Context(), func(tx *Tx) error {
		return tx.QueryRowContext(t.Context(), "SELECT name FROM numbers WHERE n = $1", 40).Scan(&name)
	})
	if !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("%v", err)
	}
}

// BenchmarkKeptStatement reads a row by its key; the second form compiles the statement
// each time, as a text that is not kept.
func BenchmarkKeptStatement(b *testing.B) {
	db := numbered(b)
	for name, query := range map[string]string{
		"kept":     "SELECT name FROM numbers WHERE n = $1",
		"compiled": "SELECT name FROM numbers WHERE n = $1;",
	} {
		b.Run(name, func(b *testing.B) {
			err := db.View(b.Context(), func(tx *Tx) error {
				for b.Loop() {
					var name string
					if err := tx.QueryRowContext(b.Context(), query, 7).Scan(&name); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
