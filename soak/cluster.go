// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"valise/internal/patroni"
)

// A cluster is PostgreSQL that fails over by itself.
type cluster struct {
	*patroni.Cluster

	mu sync.Mutex // held while a primary is interfered with, until all members follow one again
}

// newCluster starts servers, and returns how the gateway reaches them.
func (w *world) newCluster(ctx context.Context) (dsn string, err error) {
	c, err := patroni.New(patroni.Config{Logs: filepath.Join(w.Dir, "logs"), Asynchronous: w.opts.store == asyncStore})
	if err != nil {
		return "", err
	}
	w.cluster = &cluster{Cluster: c}
	limit, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := errors.Join(c.Settled(limit), c.Create(limit, "relay")); err != nil {
		return "", err
	}
	return c.DSN("relay"), nil
}

// failures are the ways in which a primary goes.
func (w *world) failures() []fault {
	return []fault{
		{"primary killed", w.failover(func(m *patroni.Member) error { return m.Kill() })},
		{"primary's server killed", w.failover(func(m *patroni.Member) error { return m.KillPostgres() })},
		{"primary frozen", w.failover(func(m *patroni.Member) error { return m.Freeze() })},
		{"primary cut off from its standbys, then killed", w.failover(func(m *patroni.Member) error {
			n, err := m.Silence()
			if err == nil && n == 0 {
				err = errors.New("it has no standbys")
			}
			rest(context.Background(), 500*time.Millisecond)
			return errors.Join(err, m.Kill())
		})},
	}
}

// failoverLimit is how long another server may take to be the primary, and the former one
// to follow it, on a machine that has a lot to do.
const failoverLimit = 4 * time.Minute

// failover makes a fault of one that ends a primary, and waits until there is another one.
func (w *world) failover(end func(*patroni.Member) error) func(context.Context, *rand.Rand) (string, bool, error) {
	return func(ctx context.Context, _ *rand.Rand) (string, bool, error) {
		c := w.cluster
		c.mu.Lock()
		defer c.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, failoverLimit)
		defer cancel()
		if err := c.Settled(ctx); err != nil {
			return "", false, err
		}
		detail, err := w.lose(ctx, end)
		return detail, err == nil, errors.Join(err, c.Settled(ctx), w.revive(ctx))
	}
}

// lose ends the primary and waits for the next one. The mutex is held.
func (w *world) lose(ctx context.Context, end func(*patroni.Member) error) (detail string, err error) {
	c := w.cluster
	former, err := c.Primary(ctx)
	if err != nil {
		return "", err
	}
	r := faultRecord{Kind: "failover", Begin: now()}
	if err := end(former); err != nil {
		return "", err
	}
	next := former
	for next == former {
		if next, err = c.Other(ctx, former); err != nil {
			return "", err
		}
	}
	r.End = now()
	r.Detail = fmt.Sprintf("from %s to %s in %.1f s", former.Name, next.Name, time.Duration(r.End-r.Begin).Seconds())
	w.faults.add(r)
	return r.Detail, former.Revive()
}

// lastAct is what happens at the end.
func (w *world) lastAct() string {
	if w.cluster != nil {
		return "primary lost with what it alone has"
	}
	return "power loss"
}

// lastPrimary lets one person write to others who are cut off while the primary's standbys hear
// nothing of it, until that is killed. What it has acknowledged without them is lost.
func (w *world) lastPrimary(ctx context.Context, speaker *person, rng *rand.Rand) error {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	limit, cancel := context.WithTimeout(ctx, failoverLimit)
	defer cancel()
	if err := c.Settled(limit); err != nil {
		return err
	}
	r := faultRecord{Kind: w.lastAct(), Begin: now()}
	var all sync.WaitGroup
	var failed error
	detail, err := w.lose(limit, func(m *patroni.Member) error {
		n, err := m.Silence()
		if err != nil || n == 0 {
			return fmt.Errorf("%d standbys were silenced: %w", n, err)
		}
		spoken := make(chan struct{})
		all.Go(func() {
			defer close(spoken)
			for range 5 {
				op := speaker.draft("duo", rng)
				speaker.send(ctx, op)
				if op.Outcome != "acknowledged" {
					failed = fmt.Errorf("last words: %s", op.Error)
				}
			}
		})
		select { // all of them where the primary waits for nobody, else none
		case <-spoken:
		case <-time.After(4 * time.Second):
		}
		return m.Kill()
	})
	if err != nil {
		return err
	}
	if w.opts.store != asyncStore {
		all.Wait()
		err = failed
	}
	r.End, r.Detail = now(), detail
	w.faults.add(r)
	w.say("last words: %s", detail)
	for _, p := range w.people {
		p.cut(false)
	}
	return errors.Join(err, c.Settled(limit), w.revive(ctx))
}
