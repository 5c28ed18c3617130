// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"valise/mls"
	"valise/wire"
)

var killSeed = flag.Uint64("killseed", 0, "seed of the moments at which the gateway is killed; 0 takes a new one")

const kills = 20

// The real daemon is killed in mid-traffic, again and again. A device that
// retries byte for byte, and one that discards what it has by number, see every
// message exactly once and in order, commits included.
func TestKilledGatewayLosesAndRepeatsNothing(t *testing.T) {
	p, gw := newProcess(t)
	j := newJourney(t, p, gw)
	j.through(kills, func() {
		p.kill()
		p.start()
	})
	j.judge()
}

// A journey is traffic from one device to another while the daemon between them
// is interrupted.
type journey struct {
	t      *testing.T
	p      *process
	gw     *testGateway
	seed   uint64
	rng    *rand.Rand
	ctx    context.Context
	sender *retrier
	reader *collector
	times  int // that the daemon was interrupted
}

// newJourney starts the daemon and lets two devices share a group.
func newJourney(t *testing.T, p *process, gw *testGateway) *journey {
	t.Helper()
	j := &journey{t: t, p: p, gw: gw, seed: *killSeed}
	if j.seed == 0 {
		j.seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -killseed %d)", j.seed, j.seed)
	j.rng = rand.New(rand.NewPCG(j.seed, 1))

	p.start()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	j.ctx = ctx
	alice, bob := newDevice(t, gw, "alice"), newDevice(t, gw, "bob")
	for _, d := range []*testDevice{alice, bob} {
		if err := d.reach(ctx, true, 0); err != nil {
			t.Fatal(err, p.log.String())
		}
		d.publish(1, false)
	}
	ga := alice.found()
	alice.add(ga, alice.take("bob")...)
	bob.listen(0)
	gb := bob.join()
	j.sender = &retrier{device: alice, group: ga, stop: make(chan struct{})}
	j.reader = &collector{device: bob, group: gb, cursor: 1, total: -1}
	return j
}

// through runs the traffic and interrupts the daemon so many times, at random moments.
func (j *journey) through(times int, interrupt func()) {
	j.t.Helper()
	ctx, cancel := context.WithCancel(j.ctx)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() {
		if j.sender.err = j.sender.run(ctx); j.sender.err != nil {
			cancel() // nothing more comes to its reader
		}
		j.reader.setTotal(j.sender.sent)
	})
	work.Go(func() { j.reader.err = j.reader.run(ctx) })
	for j.times = 0; j.times < times && ctx.Err() == nil; j.times++ {
		// Traffic flows again, then some moment in it.
		before := j.sender.progress.Load()
		until(j.t, "traffic", func() bool { return ctx.Err() != nil || j.sender.progress.Load() > before })
		select {
		case <-time.After(time.Duration(j.rng.IntN(60_000)) * time.Microsecond):
		case <-ctx.Done():
		}
		interrupt()
		j.gw.cut()
	}
	close(j.sender.stop)
	work.Wait()
}

// judge fails the test unless every message has arrived once and in order.
func (j *journey) judge() {
	j.t.Helper()
	if j.sender.err != nil || j.reader.err != nil {
		j.t.Fatalf("seed %d: sender: %v; reader: %v\n%s", j.seed, j.sender.err, j.reader.err, tail(j.p.log.String()))
	}
	lost, repeated := j.reader.check(j.sender.sent)
	j.t.Logf("%d interruptions: %d messages and %d commits acknowledged, %d lost, %d duplicated; %d sent again, %d delivered again",
		j.times, j.sender.sent, j.sender.commits, lost, repeated, j.sender.retries, j.reader.again)
	if lost+repeated > 0 {
		j.t.Errorf("seed %d: %d lost, %d duplicated", j.seed, lost, repeated)
	}
	if j.sender.retries < j.times/2 || j.sender.sent < j.times || j.reader.again == 0 {
		j.t.Errorf("seed %d: the traffic did not meet the interruptions (%d messages, %d retries)", j.seed, j.sender.sent, j.sender.retries)
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// retrier sends numbered messages, several in flight, and a commit now and
// then. What is not answered is sent again, the same bytes under the same counter.
type retrier struct {
	device                 *testDevice
	group                  *mls.Group
	stop                   chan struct{}
	sent, commits, retries int
	err                    error
	progress               atomic.Int64
}

func (r *retrier) run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-r.stop:
			return nil
		default:
		}
		var window []wire.Submission
		for range 16 {
			s := r.device.sealed(r.group, fmt.Sprint(r.sent+len(window)))
			window = append(window, s)
		}
		if err := r.deliver(ctx, window); err != nil {
			return err
		}
		r.sent += len(window)
		p, commit := r.device.commitOf(r.group)
		if err := r.deliver(ctx, []wire.Submission{commit}); err != nil {
			return err
		}
		r.commits++
		if err := r.group.Apply(p.Staged); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// deliver returns when every submission of the window is acknowledged.
func (r *retrier) deliver(ctx context.Context, window []wire.Submission) error {
	for i, s := range window {
		s.SetSubmissionCounter(r.device.counter + 1 + uint64(i))
	}
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			r.retries++
			if err := r.device.reach(ctx, false, 0); err != nil {
				return err
			}
			if w := r.device.link.welcome; w.Counter > r.device.counter+uint64(len(window)) {
				return fmt.Errorf("the gateway is at counter %d, beyond %d", w.Counter, r.device.counter+uint64(len(window)))
			}
		}
		done, err := r.attempt(window)
		if err != nil {
			return err
		}
		if done {
			r.device.counter += uint64(len(window))
			return nil
		}
	}
	return ctx.Err()
}

// attempt sends a window over the present connection; false if it broke.
func (r *retrier) attempt(window []wire.Submission) (bool, error) {
	answers := make([]chan wire.Answer, len(window))
	for i, s := range window {
		answers[i] = r.device.link.start(s)
	}
	limit := time.After(3 * time.Second)
	for i, c := range answers {
		select {
		case a, ok := <-c:
			if !ok {
				return false, nil
			}
			r.progress.Add(1)
			if code := a.(*wire.Result).Code; code != wire.OK {
				return false, fmt.Errorf("submission %d: %w", window[i].SubmissionCounter(), code)
			}
		case <-limit:
			return false, nil
		}
	}
	return true, nil
}

// collector opens what is delivered, in order, and notes how often it saw each.
type collector struct {
	device *testDevice
	group  *mls.Group
	cursor uint64
	again  int
	err    error
	texts  []string

	mu    sync.Mutex
	total int // guarded by mu; -1 while the sender runs
}

func (c *collector) setTotal(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total = n
}

func (c *collector) complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total >= 0 && len(c.texts) >= c.total
}

func (c *collector) run(ctx context.Context) error {
	for ctx.Err() == nil && !c.complete() {
		select {
		case m, ok := <-c.device.link.deliveries:
			if !ok {
				if err := c.reconnect(ctx); err != nil {
					return err
				}
				continue
			}
			if err := c.take(m); err != nil {
				return err
			}
		case <-c.device.link.conn.Context().Done():
			if err := c.reconnect(ctx); err != nil {
				return err
			}
		case <-time.After(time.Second):
			// A killed gateway says nothing; ask for a sign of life.
			if !c.alive() {
				if err := c.reconnect(ctx); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

func (c *collector) alive() bool {
	select {
	case a, ok := <-c.device.link.start(&wire.Ping{}):
		return ok && a != nil
	case <-time.After(2 * time.Second):
		return false
	}
}

func (c *collector) reconnect(ctx context.Context) error {
	persisted := c.cursor - c.cursor%3 // an older copy of its state: some comes again
	if err := c.device.reach(ctx, false, persisted); err != nil {
		return err
	}
	c.device.listen(persisted)
	return nil
}

func (c *collector) take(m *wire.Deliver) error {
	if m.Number <= c.cursor {
		c.again++
		return nil
	}
	if m.Number != c.cursor+1 {
		return fmt.Errorf("delivery %d after %d", m.Number, c.cursor)
	}
	r, err := c.group.Receive(m.Payload, time.Now())
	if err != nil {
		return fmt.Errorf("delivery %d: %w", m.Number, err)
	}
	if r.Commit != nil {
		if err := c.group.Apply(r.Commit); err != nil {
			return err
		}
	} else {
		c.texts = append(c.texts, string(r.Plaintext))
	}
	c.cursor = m.Number
	if c.cursor%3 == 0 { // lazily, so that there is something to deliver again
		_ = wire.Write(c.device.link.down, &wire.Ack{Number: c.cursor})
	}
	return nil
}

func (c *collector) check(sent int) (lost, repeated int) {
	seen := make(map[string]int)
	for _, text := range c.texts {
		seen[text]++
	}
	for i := range sent {
		switch n := seen[fmt.Sprint(i)]; {
		case n == 0:
			lost++
		case n > 1:
			repeated += n - 1
		}
	}
	for i, text := range c.texts { // in order, too
		if i < sent && text != fmt.Sprint(i) {
			lost++
		}
	}
	return lost, repeated
}

// The daemon as an operator sees it: orderly stop, deny list by SIGHUP, audit
// file, and no second process on the same data.
func TestDaemon(t *testing.T) {
	p, gw := newProcess(t)
	p.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	eve, honest := newDevice(t, gw, "eve"), newDevice(t, gw, "honest")
	for _, d := range []*testDevice{eve, honest} {
		if err := d.reach(ctx, true, 0); err != nil {
			t.Fatal(err, p.log.String())
		}
	}
	if err := os.WriteFile(filepath.Join(p.dir, "deny.list"), []byte(eve.id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if code := eve.link.closed(t); code != wire.CloseNotAdmitted {
		t.Errorf("eve's connection was closed with %d", code)
	}
	if _, err := eve.tryConnect(false, 0); err == nil {
		t.Error("eve got in")
	}
	stranger := newDeviceOf(t, gw, newAuthority(t, "interieur.example"), "mallory", newKey(t), -time.Hour, time.Hour)
	if _, err := stranger.tryConnect(true, 0); err == nil {
		t.Error("a stranger got in")
	}
	copied := newDevice(t, gw, "victim")
	copied.key = newKey(t)
	if _, err := copied.tryConnect(true, 0); err == nil {
		t.Error("a copied certificate got in")
	}
	if code := honest.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping: %v", code)
	}
	audit := filepath.Join(p.dir, "audit.jsonl")
	for _, reason := range []string{"denied", "unknown_authority", "possession_failed"} {
		until(t, "an audit line "+reason, func() bool {
			data, err := os.ReadFile(audit)
			return err == nil && bytes.Contains(data, []byte(`"event":"connection_refused","reason":"`+reason+`"`))
		})
	}
	if info, err := os.Stat(audit); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("audit file: %v, %v", info.Mode(), err)
	}

	second := &process{t: t, binary: p.binary, config: p.config, env: p.env, dir: p.dir}
	second.start()
	if err := second.cmd.Wait(); err == nil || !strings.Contains(second.log.String(), "another gateway process") {
		t.Errorf("a second daemon on the same data: %v\n%s", err, second.log.String())
	}

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := honest.link.closed(t); code != wire.CloseShutdown {
		t.Errorf("closed with %d", code)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("orderly end: %v\n%s", err, p.log.String())
	}
	p.cmd = nil
}
