// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"valise/bench/daemons"
)

// The cells of the online workload.
type workload struct{ pairs, inFlight int }

func (c workload) String() string { return fmt.Sprintf("p%dk%d", c.pairs, c.inFlight) }

var grid = []workload{{1, 1}, {1, 16}, {16, 1}, {16, 16}, {64, 1}, {64, 16}}

const (
	maxPairs = 64

	// warm is what comes before a cell's time.
	warm = 500 * time.Millisecond

	offlineBoxes    = 1000
	offlineMessages = 50 // for each
	offlineSenders  = 16
	offlineFlight   = 64 // of each sender

	// settle is how long a server has for what making boxes has left it with, such as
	// bringing groups into a database: that is not what is measured.
	settle = time.Second

	idleConnections = 3000 // so many that what a server takes once, at its first, is little of it
)

// A table holds what was measured: by server and figure, one value a round.
type table map[string]map[string][]float64

func (t table) add(server, figure string, value float64) {
	if t[server] == nil {
		t[server] = make(map[string][]float64)
	}
	t[server][figure] = append(t[server][figure], value)
}

// measure does all workloads with one kind of server.
func (b *bench) measure(ctx context.Context, t *target, dir string, round int, all table) error {
	say := func(figure string, value float64) { all.add(t.name, figure, value) }
	head := fmt.Sprintf("round %d  %-16s", round+1, t.name)
	works := []struct {
		name string
		do   func(context.Context, *server, *fleet, string, func(string, float64)) error
	}{{"online", b.online}, {"offline", b.offline}, {"idle", b.idle}}
	for _, w := range works {
		// Brokers are spoken to in clear: their connections would not compare. And
		// what stores nothing has nothing for those who were away.
		if !b.part(w.name) || w.name == "idle" && (t.kind == "nats" || t.kind == "mqtt") || w.name == "offline" && t.name == bareNothing {
			continue
		}
		err := b.with(ctx, t, dir, w.name, func(s *server, f *fleet) error { return w.do(ctx, s, f, head, say) })
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// with starts a server and its clients, and stops them afterwards.
func (b *bench) with(ctx context.Context, t *target, dir, work string, do func(*server, *fleet) error) error {
	dir = filepath.Join(dir, work)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	s, err := t.start(ctx, dir)
	if s != nil {
		defer s.stop()
	}
	if err != nil {
		return err
	}
	f, err := b.newFleet(t, s.address, work)
	defer f.stop()
	if err != nil {
		return err
	}
	if err := do(s, f); err != nil {
		return errors.Join(err, s.daemon.Ended())
	}
	return nil
}

// online runs the cells, one after another on the same server.
func (b *bench) online(ctx context.Context, s *server, f *fleet, head string, say func(string, float64)) error {
	if _, err := f.do(ctx, task{Do: "pairs", Count: maxPairs}); err != nil {
		return err
	}
	for _, c := range grid {
		if len(b.cells) > 0 && !slices.Contains(b.cells, c.String()) {
			continue
		}
		before, err := daemons.CPU(s.processes()...)
		if err != nil {
			return err
		}
		a, err := f.do(ctx, task{Do: "run", Count: c.pairs, InFlight: c.inFlight, Warm: warm, Length: b.length})
		if err != nil {
			return fmt.Errorf("%v: %w", c, err)
		}
		after, err := daemons.CPU(s.processes()...)
		if err != nil {
			return err
		}
		rate := float64(a.Count) / a.Seconds
		cost := float64((after - before).Microseconds()) / float64(a.Total) // ms for 1000
		say(c.String()+"_rate", rate)
		say(c.String()+"_cpu", cost)
		fmt.Printf("%s %-7v %8.0f messages/s  %7.1f CPU-ms per 1000\n", head, c, rate, cost)
	}
	return nil
}

// offline stores mail for receivers that are away, and then has them come.
func (b *bench) offline(ctx context.Context, s *server, f *fleet, head string, say func(string, float64)) error {
	if _, err := f.do(ctx, task{Do: "boxes", Count: offlineBoxes, Senders: offlineSenders}); err != nil {
		return err
	}
	time.Sleep(settle)
	before, err := daemons.CPU(s.processes()...)
	if err != nil {
		return err
	}
	stored, err := f.do(ctx, task{Do: "store", Count: offlineMessages, InFlight: offlineFlight})
	if err != nil {
		return err
	}
	after, err := daemons.CPU(s.processes()...)
	if err != nil {
		return err
	}
	cost := float64((after - before).Microseconds()) / float64(stored.Total) // ms for 1000
	clients := stored.CPU * 1e6 / float64(stored.Total)
	rss1, err1 := s.daemon.RSS()
	_, err2 := f.do(ctx, task{Do: "connect"})
	rss2, err3 := s.daemon.RSS()
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	peak := watch(s.daemon)
	drained, err := f.do(ctx, task{Do: "drain", Count: offlineMessages})
	rss3 := peak()
	if err != nil {
		return err
	}
	const mb = 1 << 20
	say("store_rate", float64(stored.Count)/stored.Seconds)
	say("store_cpu", cost)
	say("store_clients_cpu", clients)
	say("drain_rate", float64(drained.Count)/drained.Seconds)
	say("stored_rss", float64(rss1)/mb)
	say("connected_rss", float64(rss2)/mb)
	say("drain_growth", float64(rss3-rss2)/mb)
	fmt.Printf("%s offline %8.0f stored/s  %5.1f and clients %.1f CPU-ms per 1000  %8.0f drained/s  %d MB stored, %d with 1000 connections, %d at most while drained\n", head,
		float64(stored.Count)/stored.Seconds, cost, clients, float64(drained.Count)/drained.Seconds, rss1/mb, rss2/mb, rss3/mb)
	return nil
}

// watch looks at a process's memory until it is asked for the maximum.
func watch(p *daemons.Process) (maximum func() int64) {
	var peak atomic.Int64
	end, ended := make(chan struct{}), make(chan struct{})
	look := func() {
		if n, err := p.RSS(); err == nil {
			peak.Store(max(peak.Load(), n))
		}
	}
	go func() {
		defer close(ended)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			look()
			select {
			case <-ticker.C:
			case <-end:
				look()
				return
			}
		}
	}()
	return func() int64 {
		close(end)
		<-ended
		return peak.Load()
	}
}

// idle makes connections and weighs them.
func (b *bench) idle(ctx context.Context, s *server, f *fleet, head string, say func(string, float64)) error {
	before, err1 := daemons.CPU(s.processes()...)
	rss1, err2 := s.daemon.RSS()
	a, err3 := f.do(ctx, task{Do: "idle", Count: idleConnections})
	after, err4 := daemons.CPU(s.processes()...)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	time.Sleep(time.Second) // garbage of the handshakes
	rss2, err := s.daemon.RSS()
	if err != nil {
		return err
	}
	rate, cost := float64(a.Count)/a.Seconds, float64((after-before).Microseconds())/1000/float64(a.Count)
	each := float64(rss2-rss1) / 1000 / float64(a.Count)
	say("connect_rate", rate)
	say("connect_cpu", cost)
	say("connection_kb", each)
	fmt.Printf("%s idle    %8.0f connects/s  %6.2f CPU-ms and %5.1f kB each\n", head, rate, cost, each)
	return nil
}
