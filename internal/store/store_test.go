// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"valise/internal/testenv"
)

// eachDatabase runs a test on both databases; path is an empty one of its own.
func eachDatabase(t *testing.T, f func(t *testing.T, path string)) {
	t.Run("SQLite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "x.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, testenv.Postgres(t).DSN) })
}

func testMigrations(t testing.TB) fs.FS {
	t.Helper()
	return os.DirFS(filepath.Join("testdata", "migrations"))
}

func testOpen(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Config{Path: path, Migrations: testMigrations(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(ctx context.Context, query string, args ...any) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	}
}

func TestOpenSetsWhatTheDocumentationSays(t *testing.T) {
	// A name with characters that mean something in a URI must not change the meaning.
	path := filepath.Join(t.TempDir(), "a b?mode=memory#%20.db")
	db := testOpen(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	for name, pool := range map[string]*sql.DB{"writer": db.writer, "reader": db.reader} {
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "trusted_schema": "0"} {
			var got string
			if err := pool.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s: %s = %q, %v, want %q", name, pragma, got, err, want)
			}
		}
	}
	if _, err := os.Stat(path + "-wal"); err != nil {
		t.Error(err)
	}
}

func TestUpdateAndView(t *testing.T) { eachDatabase(t, testUpdateAndView) }

func testUpdateAndView(t *testing.T, path string) {
	ctx := t.Context()
	db := testOpen(t, path)
	if err := db.Update(ctx, exec(ctx, "INSERT INTO parent VALUES ($1, $2, $3)", 1, true, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := db.Update(ctx, func(tx *Tx) error {
		if err := exec(ctx, "INSERT INTO parent VALUES ($1, $2, $3)", 2, false, []byte{})(tx); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	var n int
	var ok bool
	err = db.View(ctx, func(tx *Tx) error {
		return tx.QueryRowContext(ctx, "SELECT count(*), sum(id) = $1 FROM parent", 1).Scan(&n, &ok)
	})
	if err != nil || n != 1 || !ok {
		t.Fatalf("n=%d ok=%t err=%v", n, ok, err)
	}
}

func TestConstraints(t *testing.T) { eachDatabase(t, testConstraints) }

func testConstraints(t *testing.T, path string) {
	ctx := t.Context()
	db := testOpen(t, path)
	if err := db.Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(*Tx) error{
		"foreign key": exec(ctx, "INSERT INTO child VALUES (1, 7, 1)"),
		"unique":      insertParent(ctx),
	} {
		if err := db.Update(ctx, f); !IsConstraint(err) || Retryable(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A number is a number: SQLite says constraint, PostgreSQL a syntax error.
	if err := db.Update(ctx, exec(ctx, "INSERT INTO child VALUES (1, 1, '12x')")); err == nil || Retryable(err) {
		t.Errorf("strict type: got %v", err)
	}
	if err := db.Update(ctx, exec(ctx, "INSERT INTO child VALUES (1, 1, 1)")); err != nil {
		t.Errorf("honest control: %v", err)
	}
	if err := db.View(ctx, exec(ctx, "DELETE FROM parent")); err == nil {
		t.Error("a view wrote")
	}
}

func insertParent(ctx context.Context) func(*Tx) error {
	return exec(ctx, "INSERT INTO parent VALUES ($1, $2, $3)", 1, true, []byte{0})
}

// Writers never see SQLITE_BUSY or a serialization failure, and no increment is lost.
func TestWritersAreSerialized(t *testing.T) { eachDatabase(t, testWritersAreSerialized) }

func testWritersAreSerialized(t *testing.T, path string) {
	ctx := t.Context()
	dbs := []*DB{testOpen(t, path), testOpen(t, path)} // two pools, as two processes have them
	if err := dbs[0].Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := dbs[0].Update(ctx, exec(ctx, "INSERT INTO child VALUES (1, 1, 0)")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const workers, rounds = 4, 15
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				err := dbs[w%2].Update(ctx, func(tx *Tx) error {
					var n int64
					if err := tx.QueryRowContext(ctx, "SELECT n FROM child WHERE id = 1").Scan(&n); err != nil {
						return err
					}
					_, err := tx.ExecContext(ctx, "UPDATE child SET n = $1 WHERE id = 1", n+1)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	if err := dbs[0].View(ctx, func(tx *Tx) error { return tx.QueryRowContext(ctx, "SELECT n FROM child").Scan(&n) }); err != nil {
		t.Fatal(err)
	}
	if n != workers*rounds {
		t.Errorf("%d increments, want %d", n, workers*rounds)
	}
}

// A lock held by another process makes Update try again, and end with its context.
func TestRetryOnBusy(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := Open(ctx, Config{Path: path, Migrations: testMigrations(t), BusyTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other := testOpen(t, path)
	holding, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- other.Update(ctx, func(*Tx) error { close(holding); <-release; return nil })
	}()
	<-holding
	err = db.Update(ctx, insertParent(ctx))
	if !Retryable(err) || !strings.Contains(err.Error(), "given up after 10 attempts") {
		t.Errorf("got %v", err)
	}
	expired, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	if err := db.Update(expired, insertParent(ctx)); err == nil {
		t.Error("got no error after the context ended")
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := db.Update(ctx, insertParent(ctx)); err != nil {
		t.Errorf("after the lock went: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) { eachDatabase(t, testOpenRefuses) }

func testOpenRefuses(t *testing.T, path string) {
	ctx := t.Context()
	cfg := Config{Path: path, Migrations: testMigrations(t), ApplicationID: 7}
	db, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	t.Run("control", func(t *testing.T) {
		db, err := Open(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = db.Close()
	})
	t.Run("another program", func(t *testing.T) {
		other := cfg
		other.ApplicationID = 8
		if _, err := Open(ctx, other); !errors.Is(err, ErrForeign) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("newer schema", func(t *testing.T) {
		newer := cfg
		first, err := fs.ReadFile(cfg.Migrations, "00001_start.sql")
		if err != nil {
			t.Fatal(err)
		}
		newer.Migrations = fstest.MapFS{
			"00001_start.sql": {Data: first},
			"00002_next.sql":  {Data: []byte("-- +goose Up\nCREATE TABLE next (id BIGINT PRIMARY KEY) STRICT;\n")},
		}
		db, err := Open(ctx, newer)
		if err != nil {
			t.Fatal(err)
		}
		_ = db.Close()
		if _, err := Open(ctx, cfg); !errors.Is(err, ErrNewer) {
			t.Errorf("got %v", err)
		}
	})
}

// Only who asks for it makes a database, or takes one that is there.
func TestOpenExpects(t *testing.T) {
	eachDatabase(t, func(t *testing.T, path string) {
		try := func(e Expectation) error {
			db, err := Open(t.Context(), Config{Path: path, Migrations: testMigrations(t), Expect: e})
			if err == nil {
				err = db.Close()
			}
			return err
		}
		if err := try(Existing); !errors.Is(err, ErrMissing) {
			t.Errorf("existing, of none: %v", err)
		}
		if !IsPostgreSQL(path) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := try(Existing); !errors.Is(err, ErrMissing) {
				t.Errorf("existing, of an empty file: %v", err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := try(Fresh); err != nil {
			t.Errorf("fresh, of none: %v", err)
		}
		if err := try(Fresh); !errors.Is(err, ErrPresent) {
			t.Errorf("fresh, of one: %v", err)
		}
		if err := errors.Join(try(Existing), try(Either)); err != nil {
			t.Error(err)
		}
	})
}

func TestOpenRefusesWhatIsNoDatabase(t *testing.T) {
	ctx := t.Context()
	t.Run("junk", func(t *testing.T) {
		junk := filepath.Join(t.TempDir(), "junk.db")
		if err := os.WriteFile(junk, []byte(strings.Repeat("junk", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ctx, Config{Path: junk, Migrations: testMigrations(t)}); err == nil {
			t.Error("opened")
		}
	})
}

func TestCheckpointTruncates(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := Open(ctx, Config{Path: path, Migrations: testMigrations(t), SecureDelete: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	secret := []byte("the attaché case is under the third bench")
	if err := db.Update(ctx, exec(ctx, "INSERT INTO parent VALUES (1, 1, $1)", secret)); err != nil {
		t.Fatal(err)
	}
	if err := db.Update(ctx, exec(ctx, "DELETE FROM parent")); err != nil {
		t.Fatal(err)
	}
	if err := db.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), string(secret)) {
			t.Errorf("%s still holds deleted content", path+suffix)
		}
	}
}

func TestPanicGivesTheWriterBack(t *testing.T) { eachDatabase(t, testPanicGivesTheWriterBack) }

func testPanicGivesTheWriterBack(t *testing.T, path string) {
	ctx := t.Context()
	db := testOpen(t, path)
	func() {
		defer func() { _ = recover() }()
		_ = db.Update(ctx, func(*Tx) error { panic("boom") })
	}()
	if err := db.Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
}

func TestURIPath(t *testing.T) {
	for path, want := range map[string]string{"/var/lib/x.db": "/var/lib/x.db", "C:/Users/x.db": "/C:/Users/x.db"} {
		if got := uriPath(path); got != want {
			t.Errorf("%s: got %s", path, got)
		}
	}
}

func TestTranslate(t *testing.T) {
	in := "CREATE TABLE t (a BIGINT, b BOOLEAN, c BLOB DEFAULT x'', bigint_ BIGINT) STRICT, WITHOUT ROWID;\n-- PostgreSQL: CREATE SEQUENCE s;"
	if got, want := string(Translate(SQLite, []byte(in))), "CREATE TABLE t (a INTEGER, b INTEGER, c BLOB DEFAULT x'', bigint_ INTEGER) STRICT, WITHOUT ROWID;\n-- PostgreSQL: CREATE SEQUENCE s;"; got != want {
		t.Errorf("sqlite: %s", got)
	}
	if got, want := string(Translate(PostgreSQL, []byte(in))), "CREATE TABLE t (a BIGINT, b BOOLEAN, c BYTEA DEFAULT '\\x', bigint_ BIGINT) ;\nCREATE SEQUENCE s;"; got != want {
		t.Errorf("postgresql: %s", got)
	}
}
