// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"valise/bench/daemons"
	"valise/gateway/mailbox"
	"valise/internal/store/relay"
)

// A measured is a store and what works for it.
type measured struct {
	mailbox.Store
	server *daemons.Postgres // nil: the store is in this process
	dir    string            // holds everything that it writes
}

// openers are the stores that a gateway can have.
var openers = map[string]func(ctx context.Context, dir string) (*measured, error){
	"journal":    openJournal,
	"postgresql": func(ctx context.Context, dir string) (*measured, error) { return openShared(ctx, dir, true) },
	"nodes":      func(ctx context.Context, dir string) (*measured, error) { return openShared(ctx, dir, false) },
}

// quota is wide: what is measured is the store and not what it refuses.
var quota = mailbox.Quota{Messages: 1 << 20, Bytes: 1 << 40, Packages: 100}

func openJournal(ctx context.Context, dir string) (*measured, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := relay.OpenJournaled(ctx, relay.Config{Path: filepath.Join(dir, "relay.db"), Quota: quota})
	if err != nil {
		return nil, err
	}
	return &measured{Store: s, dir: dir}, nil
}

// openShared opens the store on a server of its own, with the settings of Debian's
// packages; alone, as one gateway has it, or as one of several does.
func openShared(ctx context.Context, dir string, alone bool) (*measured, error) {
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the server runs as somebody else
		return nil, err
	}
	server, err := daemons.NewPostgres(ctx, dir)
	if err != nil {
		return nil, err
	}
	s, err := relay.OpenShared(ctx, relay.SharedConfig{Database: server.DSN("postgres"), Quota: quota, Alone: alone})
	if err != nil {
		server.Stop()
		return nil, err
	}
	return &measured{Store: s, server: server, dir: dir}, nil
}

func (m *measured) close() {
	_ = m.Store.Close()
	if m.server != nil {
		m.server.Stop()
	}
}

// used is the processor time of all who work.
func (m *measured) used() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	own := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if m.server == nil {
		return own, nil
	}
	theirs, err := daemons.CPU(m.server.Process)
	return own + theirs, err
}

// size is what lies on the disk.
func (m *measured) size() (total int64, err error) {
	err = filepath.WalkDir(m.dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return ignoreGone(err)
	})
	return total, err
}

// ignoreGone lets a file be deleted while it is looked for.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
