// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/internal/store"
	"valise/internal/testenv"
)

// Where the database is: each refusal beside what is accepted.
func TestDatabaseSetting(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const secret = "postgres://valise:s3cr3t@127.0.0.1/valise"
	for name, c := range map[string]struct {
		cfg  Config
		want string // what database returns; empty: refused
		says string
	}{
		"default":           {Config{Data: dir}, filepath.Join(dir, databaseFile), ""},
		"file":              {Config{Data: dir, Database: "/srv/a.db"}, "/srv/a.db", ""},
		"relative file":     {Config{Data: dir, Database: "a.db"}, filepath.Join(dir, "a.db"), ""},
		"server":            {Config{Database: "host=/run/postgresql dbname=valise"}, "host=/run/postgresql dbname=valise", ""},
		"source":            {Config{DatabaseSource: write("source", secret+"\n", 0o600)}, secret, ""},
		"password":          {Config{Database: secret}, "", "database-source"},
		"unverified server": {Config{Database: "host=db.example dbname=valise"}, "", "verify-full"},
		"both":              {Config{Database: "a.db", DatabaseSource: "b"}, "", "both"},
		"open source":       {Config{DatabaseSource: write("open", secret, 0o640)}, "", "0640"},
		"source is a path":  {Config{DatabaseSource: write("path", "/srv/a.db", 0o600)}, "", "connection string"},
		"no source":         {Config{DatabaseSource: filepath.Join(dir, "none")}, "", "no such file"},
		"unverified source": {Config{DatabaseSource: write("plain", "postgres://u:s3cr3t@db.example/valise", 0o600)}, "", "verify-full"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.resolveDatabase(dir)
			err := c.cfg.checkDatabase()
			got := ""
			if err == nil {
				got, err = c.cfg.database()
			}
			if c.want != "" && (err != nil || got != c.want) {
				t.Errorf("got %s, %v", got, err)
			}
			if c.want == "" && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cr3t")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Init makes a database where there is none; all other commands find the one it made.
func TestDatabaseIsMadeOnce(t *testing.T) {
	for name, database := range map[string]func(t *testing.T) string{
		"SQLite":     func(*testing.T) string { return "" },
		"PostgreSQL": func(t *testing.T) string { return testenv.Postgres(t).DSN },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Data: t.TempDir(), Database: database(t)}
			ctx := t.Context()
			if err := cfg.vacantDatabase(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := cfg.openDatabase(ctx); !errors.Is(err, store.ErrMissing) {
				t.Errorf("opened before it was made: %v", err)
			}
			made, err := cfg.createDatabase(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer made.Close()
			if _, err := cfg.createDatabase(ctx); !errors.Is(err, store.ErrPresent) {
				t.Errorf("made twice: %v", err)
			}
			if err := cfg.vacantDatabase(ctx); !errors.Is(err, store.ErrPresent) {
				t.Errorf("vacant: %v", err)
			}
			again, err := cfg.openDatabase(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_ = again.Close()
		})
	}
}
