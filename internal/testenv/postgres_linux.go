// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"valise/internal/postgres"
)

// A Database is an empty PostgreSQL database made for one test.
type Database struct {
	Name string
	DSN  string // connection string, without a password
	*Cluster
}

// A Cluster is a PostgreSQL server of our own. It answers at a unix socket in a
// folder that only its user and root can enter, and nowhere else; it syncs what it
// writes to the disk, as one in earnest does.
type Cluster struct {
	Socket string // its folder
	server *postgres.Server

	mu   sync.Mutex
	made int // databases, guarded by mu
}

var cluster struct {
	sync.Mutex
	running *Cluster // guarded by the mutex; ends with the process
}

// Postgres makes a database for one test, in the cluster of this test process,
// which it starts when there is none. It skips where PostgreSQL is missing.
func Postgres(t testing.TB) *Database {
	t.Helper()
	bin := postgresPrograms(t)
	cluster.Lock()
	defer cluster.Unlock()
	if cluster.running == nil {
		cluster.running = newCluster(t, bin)
	}
	return cluster.running.Database(t)
}

// PostgresServer starts a cluster for one test, which may stop and start it.
func PostgresServer(t testing.TB) *Cluster {
	t.Helper()
	c := newCluster(t, postgresPrograms(t))
	t.Cleanup(c.server.Close)
	return c
}

// Standby starts a copy of this cluster that follows it under a name, for one test.
func (c *Cluster) Standby(t testing.TB, name string) *Cluster {
	t.Helper()
	standby := startCluster(t, postgres.Config{Programs: postgresPrograms(t), Of: c.server, Name: name})
	t.Cleanup(standby.server.Close)
	return standby
}

func newCluster(t testing.TB, bin string) *Cluster {
	t.Helper()
	return startCluster(t, postgres.Config{Programs: bin})
}

func startCluster(t testing.TB, cfg postgres.Config) *Cluster {
	t.Helper()
	server, err := postgres.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{Socket: server.Socket, server: server}
}

// postgresPrograms is the folder of PostgreSQL's programs.
func postgresPrograms(t testing.TB) string {
	t.Helper()
	bin, err := postgres.Programs()
	if errors.Is(err, postgres.ErrNotInstalled) {
		Need(t, "/usr/lib/postgresql/*/bin/initdb", "postgresql")
	}
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// Database makes a database in this cluster and drops it at the end of the test.
func (c *Cluster) Database(t testing.TB) *Database {
	t.Helper()
	c.mu.Lock()
	c.made++
	name := fmt.Sprintf("test%d", c.made)
	c.mu.Unlock()
	c.Exec(t, "CREATE DATABASE "+name+" TEMPLATE template0")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = c.server.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)") // a test may have stopped the server
	})
	return &Database{Name: name, DSN: c.server.DSN(name), Cluster: c}
}

// Exec runs a statement as the cluster's owner, outside of any test's database.
func (c *Cluster) Exec(t testing.TB, statement string) {
	t.Helper()
	if err := c.server.Exec(context.Background(), statement); err != nil {
		t.Fatalf("testenv: %s: %v", statement, err)
	}
}

// Crash ends the server and all its connections at once, without a word to anybody
// and without writing anything more. Start recovers it from its log.
func (c *Cluster) Crash(t testing.TB) { t.Helper(); must(t, c.server.Crash()) }

// Stop ends the server in order, cutting its connections off. Start starts it again.
func (c *Cluster) Stop(t testing.TB) { t.Helper(); must(t, c.server.Stop()) }

// Freeze stops all processes of the server where they are, and Thaw lets them go on.
func (c *Cluster) Freeze(t testing.TB) { t.Helper(); must(t, c.server.Freeze()) }

// Thaw ends Freeze.
func (c *Cluster) Thaw(t testing.TB) { t.Helper(); must(t, c.server.Thaw()) }

// Promote makes a standby a server of its own.
func (c *Cluster) Promote(t testing.TB) { t.Helper(); must(t, c.server.Promote(context.Background())) }

// Start starts the server after it was ended.
func (c *Cluster) Start(t testing.TB) { t.Helper(); must(t, c.server.Start()) }

// Set changes a setting of the running server, as its administrator would.
func (c *Cluster) Set(t testing.TB, name, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	must(t, c.server.Set(ctx, name, value))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
