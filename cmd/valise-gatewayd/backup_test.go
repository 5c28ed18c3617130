// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/internal/testenv"
	"valise/internal/testenv/paper"
)

// operated is a configuration whose store has one device.
func operated(t *testing.T) (path string, cfg *Config) {
	t.Helper()
	path = importing(t, paper.New(t, "interieur.example"))
	cfg, err := loadConfig(path)
	if err == nil {
		err = errors.Join(os.Mkdir(cfg.Data, 0o700), os.WriteFile(cfg.Audit, nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, cfg
}

func openStore(t *testing.T, cfg *Config) mailbox.Store {
	t.Helper()
	s, err := cfg.openDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func meet(t *testing.T, s mailbox.Store, d byte) mailbox.Standing {
	t.Helper()
	st, err := s.Arrive(t.Context(), mailbox.Arrival{Device: mailbox.Device{d}, Address: "a@interieur.example", Chain: [][]byte{{1}}, Incarnation: [16]byte{d}, Begin: true, Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// The operator's way: a backup of a store that is in use, a loss, a restore. A gateway
// does not start with a data directory that was copied back.
func TestBackupAndRestore(t *testing.T) {
	config, cfg := operated(t)
	s := openStore(t, cfg)
	meet(t, s, 1)
	out := filepath.Join(t.TempDir(), "backup")
	if err := (&backupCommand{Config: config, Out: out}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := (&backupCommand{Config: config, Out: out}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over the former one: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(out)); len(left) != 1 {
		t.Errorf("it leaves %v", left)
	}
	copied := filepath.Join(t.TempDir(), "copied")
	if err := os.CopyFS(copied, os.DirFS(cfg.Data)); err != nil {
		t.Fatal(err)
	}
	meet(t, s, 2) // after both
	if err := errors.Join(cfg.noteMark(t.Context(), s.(marked)), s.Close()); err != nil {
		t.Fatal(err)
	}
	restore := func() error { return (&restoreCommand{Config: config, From: out}).Run(t.Context()) }
	if err := restore(); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over a store that is there: %v", err)
	}

	startsWith := func() error {
		s := openStore(t, cfg)
		return errors.Join(cfg.checkMark(t.Context(), s.(marked)), s.Close())
	}
	if err := startsWith(); err != nil {
		t.Errorf("control, nothing happened: %v", err)
	}
	if err := errors.Join(os.RemoveAll(cfg.Data), os.CopyFS(cfg.Data, os.DirFS(copied))); err != nil {
		t.Fatal(err)
	}
	var refused *copiedError
	if err := startsWith(); !errors.Is(err, relay.ErrRolledBack) || !errors.As(err, &refused) || refused.Hint() == "" {
		t.Errorf("a data directory that was copied back: %v", err)
	}
	if err := os.RemoveAll(cfg.Data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(cfg.Data, 0o700), startsWith()); !errors.Is(err, relay.ErrRolledBack) {
		t.Errorf("an empty data directory after a loss: %v", err)
	}
	if err := errors.Join(os.RemoveAll(cfg.Data), restore(), startsWith()); err != nil {
		t.Fatalf("restored: %v", err)
	}
	s = openStore(t, cfg)
	if st := meet(t, s, 1); st.Incarnation != [16]byte{1} || st.Last == 0 || st.Acknowledged != 0 {
		t.Errorf("a device of the backup: %+v", st)
	}
	if st := meet(t, s, 2); st.Acknowledged == 0 {
		t.Errorf("a device that the backup does not know: %+v", st)
	}
}

// Who has no backup says so: the new store gives nothing out that the lost one did.
func TestLostWithoutBackup(t *testing.T) {
	config, cfg := operated(t)
	s := openStore(t, cfg)
	meet(t, s, 1)
	if err := errors.Join(cfg.noteMark(t.Context(), s.(marked)), s.Close(), os.RemoveAll(cfg.Data)); err != nil {
		t.Fatal(err)
	}
	if err := (&restoredCommand{Config: config, Since: time.Now().Add(-time.Hour)}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	if err := cfg.checkMark(t.Context(), s.(marked)); err != nil {
		t.Error(err)
	}
	if st := meet(t, s, 1); st.Acknowledged == 0 || st.Last != st.Acknowledged {
		t.Errorf("it stands at %+v", st)
	}
}

// The documented way with PostgreSQL: pg_dump while the gateway runs, a loss, pg_restore,
// restored. Without the last of these the gateway does not start.
func TestPostgreSQLRestored(t *testing.T) {
	dump, load := testenv.Need(t, "/usr/lib/postgresql/*/bin/pg_dump", "postgresql"), testenv.Need(t, "/usr/lib/postgresql/*/bin/pg_restore", "postgresql")
	lost, fresh := testenv.Postgres(t).DSN, testenv.Postgres(t).DSN
	config, cfg := operated(t)
	use := func(dsn string) {
		cfg.Database = dsn
		line := fmt.Sprintf("database = %q\n", dsn)
		if err := os.WriteFile(config, append([]byte(line), exampleConfig...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	use(lost)
	out := filepath.Join(t.TempDir(), "dump")
	if err := (&backupCommand{Config: config, Out: out}).Run(t.Context()); !errors.Is(err, errPostgreSQL) {
		t.Errorf("our own backup of it: %v", err)
	}
	s := openStore(t, cfg)
	meet(t, s, 1)
	run := func(name string, args ...string) {
		t.Helper()
		if text, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, text)
		}
	}
	run(dump, "--format=custom", "--file="+out, "--dbname="+lost)
	meet(t, s, 2)
	// Of two more gateways on the database one has seen it before and after the dump, and
	// the other another database.
	second, stranger := *cfg, *cfg
	second.Audit, stranger.Audit = filepath.Join(t.TempDir(), "second.jsonl"), filepath.Join(t.TempDir(), "stranger.jsonl")
	for _, path := range []string{second.Audit, stranger.Audit} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(cfg.noteMark(t.Context(), s.(marked)), second.noteMark(t.Context(), s.(marked)), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stranger.markFile(), []byte(`{"store":"000102030405060708090a0b0c0d0e0f","seen":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	use(fresh)
	run(load, "--no-owner", "--exit-on-error", "--dbname="+fresh, out)
	s = openStore(t, cfg)
	if err := errors.Join(cfg.checkMark(t.Context(), s.(marked)), s.Close()); !errors.Is(err, relay.ErrRolledBack) {
		t.Errorf("pg_restore alone: %v", err)
	}
	node, err := relay.OpenNode(t.Context(), relay.SharedConfig{Database: fresh, Node: "second"})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.checkMark(t.Context(), node); !errors.Is(err, relay.ErrRolledBack) {
		t.Errorf("pg_restore alone, at another gateway: %v", err)
	}
	if err := (&restoredCommand{Config: config, Since: time.Now()}).Run(t.Context()); !errors.Is(err, relay.ErrInUse) {
		t.Errorf("restored while another gateway runs: %v", err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (&restoredCommand{Config: config, Since: time.Now()}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	for _, each := range []*Config{cfg, &second} {
		if err := each.checkMark(t.Context(), s.(marked)); err != nil {
			t.Error(err)
		}
	}
	if err := stranger.checkMark(t.Context(), s.(marked)); !errors.Is(err, relay.ErrRolledBack) {
		t.Errorf("a database that this one never was: %v", err)
	}
	if st := meet(t, s, 1); st.Acknowledged != 0 || st.Last == 0 {
		t.Errorf("a device of the dump: %+v", st)
	}
	if st := meet(t, s, 2); st.Acknowledged == 0 {
		t.Errorf("a device that came later: %+v", st)
	}
}
