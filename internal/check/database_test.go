// SPDX-License-Identifier: Apache-2.0

package check

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// inspected opens the relay's database once, and looks at it as check does.
func inspected(t *testing.T, database string) (*Report, Reference) {
	t.Helper()
	r := new(Report)
	facts, err := relay.Inspect(t.Context(), database)
	return r, Database(r, facts, err, "")
}

func exec(t *testing.T, dsn, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func made(t *testing.T, dsn string) {
	t.Helper()
	s, err := relay.OpenShared(t.Context(), relay.SharedConfig{Database: dsn})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Each fault of a real server is found, and a server without one has none.
func TestPostgreSQL(t *testing.T) {
	c := testenv.PostgresServer(t)
	name := func(dsn string) string {
		_, n, _ := strings.Cut(dsn, "dbname=")
		n, _, _ = strings.Cut(n, " ")
		return n
	}
	db := c.Database(t)
	find := func(what, want string, as Result) {
		t.Helper()
		r, clock := inspected(t, db.DSN)
		found := reasons(r)
		if want != "" && found[want] != as || want == "" && len(found) != 0 {
			t.Errorf("%s: want %q: %v", what, want, r.Lines())
		}
		if want == "" && clock.Said.IsZero() {
			t.Error("the server's clock was not asked")
		}
	}
	find("missing", "database_missing", Warn)
	made(t, db.DSN)
	for _, test := range []struct {
		what, fault, undo, want string
	}{
		{"newer schema", "UPDATE valise_database SET oldest = 9999; INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)", "UPDATE valise_database SET oldest = 1; DELETE FROM goose_db_version WHERE version_id = 9999", "schema_newer"},
		{"foreign", "UPDATE valise_database SET application = application + 1", "UPDATE valise_database SET application = application - 1", "database_foreign"},
		{"read only", "ALTER DATABASE " + name(db.DSN) + " SET default_transaction_read_only = on", "", "database_read_only"},
	} {
		find("control", "", OK)
		exec(t, db.DSN, test.fault)
		find(test.what, test.want, Fail)
		if test.undo != "" {
			exec(t, db.DSN, test.undo)
		}
	}
	c.Exec(t, "ALTER DATABASE "+name(db.DSN)+" RESET default_transaction_read_only")
	find("control", "", OK)
	exec(t, db.DSN, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	find("newer schema that takes this program", "schema_ahead", Warn)
	exec(t, db.DSN, "DELETE FROM goose_db_version WHERE version_id = 9999")
	t.Run("clock", func(t *testing.T) { compareClocks(t, db.DSN) })
	t.Run("encoding", func(t *testing.T) {
		c.Exec(t, "CREATE DATABASE narrow ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
		dsn := strings.Replace(db.DSN, name(db.DSN), "narrow", 1)
		made(t, dsn)
		if r, _ := inspected(t, dsn); reasons(r)["database_encoding"] != Fail {
			t.Errorf("%v", r.Lines())
		}
		c.Exec(t, "DROP DATABASE narrow")
	})
	t.Run("server", func(t *testing.T) {
		// Other programs take nearly all connections.
		other, err := sql.Open("pgx", db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		facts, err := relay.Inspect(t.Context(), db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		for range facts.Connections - facts.Used - 5 {
			conn, err := other.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		if r, _ := inspected(t, db.DSN); reasons(r)["database_connections"] != Warn {
			t.Errorf("few connections: %v", r.Lines())
		}
		c.Set(t, "fsync", "off")
		if r, _ := inspected(t, db.DSN); reasons(r)["database_no_sync"] != Fail {
			t.Errorf("no fsync: %v", r.Lines())
		}
		c.Set(t, "fsync", "on")
		c.Stop(t)
		if r, _ := inspected(t, db.DSN); reasons(r)["database_unreachable"] != Fail {
			t.Errorf("stopped: %v", r.Lines())
		}
		c.Start(t)
	})
}

// A file is looked at without being changed, also beside the process that has it open.
func TestSQLiteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.db")
	if r, _ := inspected(t, path); reasons(r)["database_missing"] != Warn {
		t.Errorf("missing: %v", r.Lines())
	}
	s, err := relay.OpenJournaled(t.Context(), relay.Config{Path: path, Segment: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := inspected(t, path); len(reasons(r)) != 0 {
		t.Errorf("control, open elsewhere: %v", r.Lines())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r, _ := inspected(t, path); len(reasons(r)) != 0 {
		t.Errorf("control: %v", r.Lines())
	}
	foreign, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if _, err := foreign.ExecContext(t.Context(), "PRAGMA application_id = 7"); err != nil {
		t.Fatal(err)
	}
	if r, _ := inspected(t, path); reasons(r)["database_foreign"] != Fail {
		t.Errorf("foreign: %v", r.Lines())
	}
}

// compareClocks compares the clock with a real server's: right, drifting, wrong.
func compareClocks(t *testing.T, dsn string) {
	for wrong, want := range map[time.Duration]struct {
		reason string
		as     Result
	}{
		0:                {},
		10 * time.Second: {"clock_drift", Warn},
		-5 * time.Minute: {"clock_offset", Fail},
		5 * time.Minute:  {"clock_offset", Fail},
	} {
		facts, err := relay.Inspect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		// This process's clock, as it would be if it were wrong.
		facts.Before, facts.After = facts.Before.Add(wrong), facts.After.Add(wrong)
		r := new(Report)
		Clock(r, time.Now, Database(new(Report), facts, nil, ""))
		found := reasons(r)
		delete(found, "clock_unsynchronized") // this machine's own state is not the subject
		if want.reason == "" && len(found) != 0 || want.reason != "" && found[want.reason] != want.as {
			t.Errorf("%v: %v", wrong, r.Lines())
		}
	}
	r := new(Report)
	Clock(r, time.Now, Reference{Name: "the audit stream", Said: time.Now().Add(time.Hour), Past: true})
	if reasons(r)["clock_behind"] != Fail {
		t.Errorf("behind what was written: %v", r.Lines())
	}
}
