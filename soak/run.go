// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A verdict is what the judge said.
type verdict struct {
	line   string
	status int
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "soak: %7.1f s  %s\n", time.Duration(now()).Seconds(), fmt.Sprintf(format, args...))
}

// run is a whole soak.
func (o *options) run(ctx context.Context) (v *verdict, err error) {
	fmt.Fprintf(os.Stderr, "soak: SOAK_SEED=%d, %v of faults, store %s, %d nodes, %s disk\n", o.seed, o.length, o.store, o.nodes, o.disk)
	// Building and recovering have bounds of their own; this one is for what nobody thought of.
	ctx, cancel := context.WithTimeout(ctx, 2*o.length+10*time.Minute)
	defer cancel()
	w, err := o.build(ctx)
	if w != nil && w.Stage != nil {
		defer func() { err = errors.Join(err, w.end(err == nil && v.status == 0)) }()
	}
	if err != nil {
		return nil, err
	}
	w.say("%d people in %d conversations", len(names), len(conversations))
	if err := w.live(ctx); err != nil {
		return nil, err
	}
	return w.judge(ctx)
}

// live is the traffic, the faults, and the last act.
func (w *world) live(ctx context.Context) error {
	observing, stopObserving := context.WithCancel(ctx)
	defer stopObserving()
	var observers sync.WaitGroup
	errs := make(chan error, len(names))
	for _, p := range w.people {
		observers.Go(func() { errs <- p.observe(observing) })
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	stream := uint64(100)
	for _, c := range conversations {
		for _, name := range append(c.Members[:len(c.Members):len(c.Members)], strings.Fields(c.Guest)...) {
			stream++
			rng := w.source(stream)
			writers.Go(func() { w.people[name].write(ctx, c.Name, rng, stop) })
		}
		for _, name := range c.Hosts {
			stream++
			rng := w.source(stream)
			writers.Go(func() { w.people[name].host(ctx, c, rng, stop) })
		}
	}
	kinds := w.kinds()
	err := w.harm(ctx, time.Now().Add(w.opts.length))
	close(stop)
	writers.Wait()
	if err == nil {
		err = w.lastWords(ctx)
	}
	if err == nil {
		err = w.settle(ctx)
		if err != nil && w.opts.store == asyncStore { // those who were promised what is lost may not come back
			w.say("%v", err)
			err = nil
		}
	}
	stopObserving()
	observers.Wait()
	for range names {
		err = errors.Join(err, <-errs)
	}
	for _, p := range w.people {
		if n := p.refused.Load(); n > 0 {
			err = errors.Join(err, fmt.Errorf("%d messages of %s were refused for good, and nobody had done wrong", n, p.Name))
		}
	}
	list := []string{w.lastAct()}
	for _, f := range kinds {
		if w.opts.length > 0 && f.kind != list[0] {
			list = append(list, f.kind)
		}
	}
	return errors.Join(err, w.writePlan(list), w.ops.close(), w.faults.close())
}

// lastWords lets one person write to others who are cut off, until the power goes. Nobody
// writes after that: only the gateway's disk can bring these messages.
func (w *world) lastWords(ctx context.Context) error {
	speaker := w.people[names[0]]
	if err := w.quiet(ctx); err != nil {
		return err
	}
	for _, p := range w.people {
		if p != speaker {
			p.cut(true)
		}
	}
	rng := w.source(3)
	if w.cluster != nil {
		return w.lastPrimary(ctx, speaker, rng)
	}
	if w.opts.disk == "lying" {
		w.lie(true)
	}
	spoken := 0
	for _, c := range conversations {
		for _, name := range c.Members {
			for i := 0; name == speaker.Name && i < 5; i++ {
				op := speaker.draft(c.Name, rng)
				speaker.send(ctx, op)
				if op.Outcome != "acknowledged" {
					return fmt.Errorf("last words: %s", op.Error)
				}
				spoken++
			}
		}
	}
	r := faultRecord{Kind: w.lastAct(), Begin: now(), Detail: fmt.Sprintf("after %d messages to people who are cut off", spoken)}
	if _, _, err := w.powerLoss(ctx, rng); err != nil {
		return err
	}
	w.lie(false)
	r.End = now()
	w.faults.add(r)
	w.say("last words: %d messages, then power loss", spoken)
	for _, p := range w.people {
		p.cut(false)
	}
	return nil
}

func (w *world) lie(on bool) {
	for _, v := range w.volumes() {
		v.disk.Lie(on)
	}
}

// quiet waits until nobody has seen anything new for some seconds.
func (w *world) quiet(ctx context.Context) error {
	lull := 6 * time.Second
	if w.opts.length < 2*time.Minute {
		lull /= 2
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	last, since := int64(-1), time.Now()
	for time.Since(since) < lull {
		if ctx.Err() != nil {
			return errors.New("new things go on appearing although nobody writes")
		}
		total := int64(0)
		for _, p := range w.people {
			total += p.seen.Load()
		}
		if total != last {
			last, since = total, time.Now()
		}
		rest(ctx, 100*time.Millisecond)
	}
	return nil
}

// settle waits until everybody is connected and has what waited for them.
func (w *world) settle(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for _, p := range w.people {
		for {
			out, err := p.Run(limit, "status", "--json")
			var st struct {
				Engine struct {
					Connection struct {
						Name  string
						Since time.Time
					}
				}
			}
			// A device takes itself for online until it notices that the gateway has gone.
			if err == nil && json.Unmarshal([]byte(out), &st) == nil &&
				st.Engine.Connection.Name == "online" && st.Engine.Connection.Since.After(w.restored) {
				break
			}
			if limit.Err() != nil {
				return fmt.Errorf("%s is not online again: %w: %s", p.Name, err, out)
			}
			rest(limit, 200*time.Millisecond)
		}
	}
	return w.quiet(ctx)
}

// judge asks the checker.
func (w *world) judge(ctx context.Context) (*verdict, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.opts.bin, "check-soak"), w.logs)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || len(out) == 0 {
		return nil, fmt.Errorf("the judge: %w", err)
	}
	v := &verdict{line: strings.TrimSpace(string(out))}
	if exit != nil {
		v.status = 1
	}
	return v, nil
}

// end stops everything, and keeps what there is to look at.
func (w *world) end(good bool) error {
	w.Close()
	var err error
	for _, p := range w.people {
		err = errors.Join(err, p.close())
	}
	if w.database != nil {
		err = errors.Join(err, w.database.close())
	}
	if w.cluster != nil {
		err = errors.Join(err, w.cluster.Close())
	}
	for _, v := range w.places {
		if v.mount != nil {
			err = errors.Join(err, v.mount.Unmount())
		}
	}
	if !good || w.opts.keep {
		fmt.Fprintf(os.Stderr, "soak: everything is in %s\n", w.Dir)
		return err
	}
	return errors.Join(err, w.Remove())
}
