// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"time"

	"valise/internal/disk"
	"valise/internal/postgres"
	"valise/internal/wan"
)

// The stores that a gateway may have.
const (
	journalStore  = "journal"
	postgresStore = "postgres"
	bothStores    = "both"    // one run after the other
	clusterStore  = "cluster" // PostgreSQL servers of which one takes the other's place
	asyncStore    = "async"   // the same, where the primary waits for no standby
)

// A database is a PostgreSQL server on a disk of its own, and the way to it.
type database struct {
	line *wan.Line // the only way that the gateway knows

	mu     sync.Mutex // held while the server is interfered with
	server *postgres.Server
	place  volume // guarded by mu
}

// A volume is a disk in its place.
type volume struct {
	disk  *disk.Disk
	mount *disk.Mount
	dir   string
}

// powerCycle mounts again what has survived; whoever used it must have ended.
func (v *volume) powerCycle() error {
	if err := v.mount.Unmount(); err != nil {
		return err
	}
	v.disk.Restore()
	var err error
	v.mount, err = v.disk.Mount(v.dir)
	return err
}

// newDatabase starts a server, and returns how the gateway reaches it.
func (w *world) newDatabase(ctx context.Context) (dsn string, err error) {
	programs, err := postgres.Programs()
	if err != nil {
		return "", err
	}
	db := new(database)
	db.server, err = postgres.New(postgres.Config{
		Programs: programs, Log: filepath.Join(w.Dir, "logs", "postgres.log"),
		Settings: []string{"checkpoint_timeout=30s"}, // the shortest that there is
		Place: func(dir string, uid, gid uint32) (err error) {
			db.place.dir = dir
			db.place.disk = disk.New(disk.Config{Seed: w.opts.seed + 1, Torn: w.opts.disk == "torn", UID: uid, GID: gid})
			db.place.mount, err = db.place.disk.Mount(dir)
			return err
		},
		Made: func() { db.place.disk.Sync() },
	})
	if err != nil {
		if db.place.mount != nil {
			err = errors.Join(err, db.place.mount.Unmount())
		}
		return "", err
	}
	w.database = db
	if err := db.server.Exec(ctx, "CREATE DATABASE relay TEMPLATE template0"); err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	db.line, err = wan.NewLine(wan.LineConfig{Inside: listener, Dial: func() (net.Conn, error) { return net.Dial("unix", db.server.SocketFile()) }})
	port := listener.Addr().(*net.TCPAddr).Port
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=relay sslmode=disable", port, postgres.Superuser), err
}

// close ends the server, whose folder goes with it.
func (db *database) close() error {
	var err error
	if db.line != nil {
		err = db.line.Close()
	}
	if e := db.server.Kill(); e != nil {
		err = errors.Join(err, e)
	}
	err = errors.Join(err, db.place.mount.Unmount())
	db.server.Close()
	return err
}

// revive starts the server if it has ended, and waits until it answers.
func (db *database) revive(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return again(ctx, func(context.Context) error { return db.server.Start() })
}

func (w *world) killDatabase(ctx context.Context, rng *rand.Rand) (string, bool, error) {
	db := w.database
	before := db.line.Stats()
	db.mu.Lock()
	err := db.server.Kill()
	if err == nil {
		w.during(ctx, rng, 100*time.Millisecond, 4*time.Second)
	}
	db.mu.Unlock()
	if err := errors.Join(err, db.revive(ctx), w.revive(ctx)); err != nil {
		return "", true, err
	}
	n := db.line.Stats().Rejected - before.Rejected
	return fmt.Sprintf("%d connections were refused", n), true, nil
}

// cutDatabase closes the way to the database: what is under way waits there and goes on
// later, or never does, or is broken off at once. Neither side is told why.
func (w *world) cutDatabase(ctx context.Context, rng *rand.Rand) (string, bool, error) {
	line := w.database.line
	before := line.Stats()
	how := []string{"frozen", "frozen, then broken off", "broken off"}[rng.IntN(3)]
	line.Set(wan.Frozen)
	if how == "broken off" {
		line.Set(wan.Shut)
	}
	w.during(ctx, rng, 2*time.Second, 12*time.Second)
	met := func() int64 {
		s := line.Stats()
		return s.Waited + s.Rejected - before.Waited - before.Rejected
	}
	for range 40 { // with the gateway away nobody asks for it
		if met() > 0 || ctx.Err() != nil {
			break
		}
		rest(ctx, 250*time.Millisecond)
	}
	if how == "frozen, then broken off" {
		line.Set(wan.Shut)
	}
	line.Set(wan.Open)
	n := met()
	return fmt.Sprintf("%s: %d requests and connections", how, n), n > 0, w.revive(ctx)
}
