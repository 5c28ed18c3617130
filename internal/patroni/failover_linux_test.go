// SPDX-License-Identifier: Apache-2.0

//go:build ha

package patroni_test

import (
	"context"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"valise/internal/patroni"
	"valise/internal/store"
)

var migrations fs.FS = fstest.MapFS{"00001_t.sql": {Data: []byte(`-- schema: additive
-- +goose Up
CREATE TABLE t (n BIGINT PRIMARY KEY) STRICT;
`)}}

func newCluster(t *testing.T, cfg patroni.Config) *patroni.Cluster {
	t.Helper()
	cfg.Logs = t.TempDir()
	if dir := os.Getenv("VALISE_HA_LOGS"); dir != "" {
		cfg.Logs = dir
	}
	c, err := patroni.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	settled(t, c)
	if err := c.Create(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	return c
}

func settled(t *testing.T, c *patroni.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := c.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}

func primary(t *testing.T, c *patroni.Cluster) *patroni.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m, err := c.Primary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Whatever way the primary goes, what the store has acknowledged is there after it, and it
// goes on with the next one by itself.
func TestStoreFollowsThePrimary(t *testing.T) {
	c := newCluster(t, patroni.Config{})
	db, err := store.Open(t.Context(), store.Config{Path: c.DSN("t"), Migrations: migrations})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w := &writer{db: db}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.write(ctx); close(done) }()
	for name, end := range map[string]func(m *patroni.Member) error{
		"killed":         func(m *patroni.Member) error { return m.Kill() },
		"server killed":  func(m *patroni.Member) error { return m.KillPostgres() },
		"frozen":         func(m *patroni.Member) error { return m.Freeze() },
		"behind, killed": func(m *patroni.Member) error { _, err := m.Silence(); w.more(); return errJoin(err, m.Kill()) },
	} {
		w.until(t, 20)
		m := primary(t, c)
		begin := time.Now()
		if err := end(m); err != nil {
			t.Fatal(err)
		}
		w.until(t, 20)
		t.Logf("%s: writes again after %v", name, time.Since(begin).Round(time.Millisecond))
		_ = m.Thaw()
		if name != "server killed" && name != "frozen" {
			if err := m.Start(); err != nil {
				t.Fatal(err)
			}
		}
		settled(t, c)
	}
	stop()
	<-done
	var n int
	if err := db.View(t.Context(), func(tx *store.Tx) error { return tx.QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&n) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d acknowledged, %d there, longest pause %v", w.acknowledged.Load(), n, time.Duration(w.longest.Load()))
	for _, id := range w.known {
		var there bool
		if err := db.View(t.Context(), func(tx *store.Tx) error {
			return tx.QueryRowContext(t.Context(), "SELECT EXISTS (SELECT FROM t WHERE n = $1)", id).Scan(&there)
		}); err != nil || !there {
			t.Errorf("%d was acknowledged and is lost: %v", id, err)
		}
	}
}
