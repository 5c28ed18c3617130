// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"

	"valise/internal/testenv"
)

// Schemas of a program and of those that follow it.
const (
	additiveStep = "-- oldest: 1\n-- +goose Up\nALTER TABLE child ADD COLUMN note TEXT NOT NULL DEFAULT '';\nCREATE TABLE next (id BIGINT PRIMARY KEY) STRICT;\n"
	breakingStep = "-- +goose Up\nALTER TABLE child RENAME COLUMN n TO amount;\n"
)

// version is the present schema with these steps behind it.
func version(t testing.TB, steps ...string) fs.FS {
	t.Helper()
	first, err := fs.ReadFile(testMigrations(t), "00001_start.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"00001_start.sql": {Data: first}}
	for i, step := range steps {
		files["0000"+string(rune('2'+i))+"_step.sql"] = &fstest.MapFile{Data: []byte(step)}
	}
	return files
}

func tryVersion(t testing.TB, path string, steps ...string) (*DB, error) {
	t.Helper()
	return Open(t.Context(), Config{Path: path, Migrations: version(t, steps...), attempts: 3})
}

func openVersion(t testing.TB, path string, steps ...string) *DB {
	t.Helper()
	db, err := tryVersion(t, path, steps...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// A schema that only adds something comes while the version before writes: it loses
// nothing, and can be started again.
func TestOldProgramGoesOn(t *testing.T) { eachDatabase(t, testOldProgramGoesOn) }

func testOldProgramGoesOn(t *testing.T, path string) {
	old := openVersion(t, path)
	ctx := t.Context()
	if err := old.Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	var written atomic.Int64
	put := func(db *DB, query string) {
		if err := db.Update(ctx, exec(ctx, query, written.Add(1))); err != nil {
			t.Error(err)
		}
	}
	upgraded := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for more := 10; more > 0; more-- { // some before, during and after
				put(old, "INSERT INTO child (id, parent, n) VALUES ($1, 1, 0)")
				select {
				case <-upgraded:
				default:
					more++
				}
			}
		})
	}
	next, err := tryVersion(t, path, additiveStep)
	close(upgraded)
	if err != nil {
		wg.Wait()
		t.Fatal(err)
	}
	defer next.Close()
	for range 10 {
		put(next, "INSERT INTO child (id, parent, n, note) VALUES ($1, 1, 0, 'new')")
	}
	wg.Wait()
	again := openVersion(t, path)
	put(again, "INSERT INTO child (id, parent, n) VALUES ($1, 1, 0)")
	var n int64
	err = again.View(ctx, func(tx *Tx) error { return tx.QueryRowContext(ctx, "SELECT count(*) FROM child").Scan(&n) })
	if err != nil || n != written.Load() || n < 31 {
		t.Errorf("%d of %d are there: %v", n, written.Load(), err)
	}
}

// A schema that the version before could not use waits until nobody uses that any more,
// and changes nothing until then; afterwards that version refuses.
func TestBreakingChangeWaitsForOldPrograms(t *testing.T) {
	eachDatabase(t, func(t *testing.T, path string) {
		ctx := t.Context()
		old := openVersion(t, path)
		if err := old.Update(ctx, insertParent(ctx)); err != nil {
			t.Fatal(err)
		}
		_, err := tryVersion(t, path, additiveStep, breakingStep)
		if !errors.Is(err, ErrOlder) {
			t.Fatalf("upgraded beside an old program: %v", err)
		}
		if IsPostgreSQL(path) && !strings.Contains(err.Error(), "schema 1 from this machine") {
			t.Errorf("it does not say who is connected: %v", err)
		}
		if err := old.Update(ctx, exec(ctx, "INSERT INTO child (id, parent, n) VALUES (1, 1, 1)")); err != nil {
			t.Errorf("the old program after the refusal: %v", err)
		}
		again := openVersion(t, path) // also a further one
		if err := errors.Join(again.Close(), old.Close()); err != nil {
			t.Fatal(err)
		}
		next := openVersion(t, path, additiveStep, breakingStep)
		if err := next.Update(ctx, exec(ctx, "INSERT INTO child (id, parent, amount) VALUES (2, 1, 1)")); err != nil {
			t.Error(err)
		}
		for steps, want := range map[int]bool{0: false, 1: false, 2: true} {
			db, err := tryVersion(t, path, []string{additiveStep, breakingStep}[:steps]...)
			if want != (err == nil) || !want && !errors.Is(err, ErrNewer) {
				t.Errorf("a program of schema %d: %v", 1+steps, err)
			}
			if err == nil {
				_ = db.Close()
			}
		}
		// What follows decides for itself who can use it.
		last := openVersion(t, path, additiveStep, breakingStep, "-- oldest: 3\n-- +goose Up\nCREATE TABLE last (id BIGINT PRIMARY KEY) STRICT;\n")
		_ = last.Close()
		_ = openVersion(t, path, additiveStep, breakingStep)
		if _, err := tryVersion(t, path); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "for programs of schema 3 and later; this one is of 1") {
			t.Errorf("the first version: %v", err)
		}
	})
}

// An old program that had no connection when the schema changed gets none afterwards.
func TestOldProgramComesBack(t *testing.T) {
	ctx := t.Context()
	db := testenv.Postgres(t)
	old := openVersion(t, db.DSN)
	if err := old.Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	admin, err := sql.Open("pgx", db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	next := openVersion(t, db.DSN, additiveStep) // which old survives: it names the columns that it writes
	if err := old.Update(ctx, exec(ctx, "INSERT INTO child (id, parent, n) VALUES (1, 1, 1)")); err != nil {
		t.Errorf("after an additive change: %v", err)
	}
	_ = next.Close()
	if _, err := admin.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	openVersion(t, db.DSN, additiveStep, breakingStep)
	if err := old.Update(ctx, exec(ctx, "INSERT INTO child (id, parent, n) VALUES (2, 1, 1)")); !errors.Is(err, ErrNewer) {
		t.Errorf("after a breaking change: %v", err)
	}
}

// A table that somebody keeps delays a migration, and nobody else.
func TestMigrationStepsAside(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db := testenv.Postgres(t)
	old := openVersion(t, db.DSN)
	if err := old.Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	admin, err := sql.Open("pgx", db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	backup, err := admin.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Rollback()
	if _, err := backup.ExecContext(ctx, "LOCK TABLE child IN ACCESS SHARE MODE"); err != nil { // as pg_dump does
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		next, err := Open(ctx, Config{Path: db.DSN, Migrations: version(t, additiveStep)})
		if err == nil {
			err = next.Close()
		}
		done <- err
	}()
	waiting := func() (yes bool) {
		err := admin.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock')`).Scan(&yes)
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	for !waiting() {
	}
	for i := range 20 { // behind the one that waits
		if err := old.Update(ctx, exec(ctx, "INSERT INTO child (id, parent, n) VALUES ($1, 1, 1)", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := backup.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What never lets go is named.
func TestMigrationGivesUp(t *testing.T) {
	ctx := t.Context()
	db := testenv.Postgres(t)
	old := openVersion(t, db.DSN)
	var got error
	err := old.Update(ctx, func(tx *Tx) error {
		if _, err := tx.ExecContext(ctx, "LOCK TABLE child IN ACCESS SHARE MODE"); err != nil {
			return err
		}
		_, got = Open(ctx, Config{Path: db.DSN, Migrations: version(t, additiveStep), attempts: 1})
		return nil
	})
	if err != nil || !errors.Is(got, ErrOccupied) {
		t.Errorf("got %v, %v", got, err)
	}
	openVersion(t, db.DSN, additiveStep) // when it has let go
}

// A database of before versions were kept is taken as it is.
func TestDatabaseFromBeforeVersions(t *testing.T) {
	ctx := t.Context()
	db := testenv.Postgres(t)
	first := openVersion(t, db.DSN)
	if err := first.Update(ctx, exec(ctx, "ALTER TABLE valise_database DROP COLUMN oldest")); err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	next := openVersion(t, db.DSN, additiveStep)
	_ = next.Close()
	_ = openVersion(t, db.DSN)
}

// Every migration says who can go on after it, and what says that older programs can is
// known to be survived by them: if they name the columns that they write and read.
func TestMigrationsSayWhoCanGoOn(t *testing.T) {
	before := map[string]int64{"relay": 15, "authority": 7, "feed": 1, "vault": 1} // did not say it
	root := filepath.Join("..", "..")
	seen := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "testdata") {
			return err
		}
		if filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go") {
			return namesColumns(path)
		}
		dir, name := filepath.Split(path)
		if filepath.Base(dir) != "migrations" || filepath.Ext(name) != ".sql" {
			return nil
		}
		owner := filepath.Base(filepath.Dir(filepath.Clean(dir)))
		seen[owner] = true
		n, err := goose.NumericComponent(name)
		if err != nil || n <= before[owner] {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !oldestLine.Match(text) {
			t.Errorf("%s: it has no line \"-- oldest: N\": from which version on can programs go on after it? (%d: only those that know it; see schema.go)", path, n)
		}
		if err := Additive(text, n); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil || len(seen) != len(before) {
		t.Errorf("looked at %v: %v", seen, err)
	}
}

var nameless = regexp.MustCompile(`INSERT INTO \w+ (VALUES|SELECT)|SELECT \* FROM \w+`)

func namesColumns(path string) error {
	text, err := os.ReadFile(path)
	if err == nil && bytes.Contains(text, []byte("$1")) {
		for _, found := range nameless.FindAllString(string(text), -1) {
			if !strings.HasSuffix(found, " unnest") {
				err = fmt.Errorf("%s: %q: name the columns, or this program does not survive the next one's", path, found)
			}
		}
	}
	return err
}

func TestAdditive(t *testing.T) {
	for _, text := range []string{
		"-- oldest: 3\nCREATE TABLE a (id BIGINT PRIMARY KEY) STRICT; INSERT INTO a VALUES (1);",
		"-- oldest: 4\nALTER TABLE a ADD COLUMN b BIGINT NOT NULL DEFAULT 0; -- DROP TABLE a;\nCREATE INDEX x ON a (b);",
		"-- oldest: 3\nALTER TABLE a ADD COLUMN b BLOB NOT NULL DEFAULT x'';\n-- PostgreSQL: CREATE SEQUENCE s;",
		"DROP TABLE a;", // and says so
		"-- oldest: 5\nDROP TABLE a;",
	} {
		if err := Additive([]byte(text), 5); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		"-- oldest: 4\nDROP TABLE a;",
		"-- oldest: 4\nALTER TABLE a RENAME b TO c;",
		"-- oldest: 4\nALTER TABLE a DROP COLUMN b;",
		"-- oldest: 4\nALTER TABLE a ADD COLUMN b BIGINT NOT NULL;",
		"-- oldest: 4\nCREATE UNIQUE INDEX x ON a (b);",
		"-- oldest: 4\nINSERT INTO a VALUES (1);",
		"-- oldest: 4\nUPDATE a SET b = 1;",
		"-- oldest: 4\n-- PostgreSQL: ALTER TABLE a ALTER b DROP NOT NULL;",
		"-- oldest: 6\nCREATE TABLE a (id BIGINT);",
		"-- oldest: 0\nCREATE TABLE a (id BIGINT);",
		"-- oldest: 3\n-- oldest: 4\nCREATE TABLE a (id BIGINT);",
	} {
		if err := Additive([]byte(text), 5); err == nil {
			t.Errorf("%s is let pass", text)
		}
	}
}
