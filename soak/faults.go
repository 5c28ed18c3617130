// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"valise/internal/wan"
	"valise/internal/warp"
)

// A fault is one kind of thing that goes wrong. do returns when it is over and what it
// hurt works again, or can; it reports what it met. A fault that met nothing, because
// no packet or no write came while it lasted, is not counted.
type fault struct {
	kind string
	do   func(ctx context.Context, rng *rand.Rand) (detail string, met bool, err error)
}

// during waits for a span between lo and hi, as long as a short run allows.
func (w *world) during(ctx context.Context, rng *rand.Rand, lo, hi time.Duration) {
	d := lo + time.Duration(rng.Int64N(int64(hi-lo)))
	if w.opts.length < 2*time.Minute {
		d /= 3
	}
	rest(ctx, d)
}

// kinds lists every kind of fault.
func (w *world) kinds() []fault {
	list := []fault{
		{"gateway killed", w.node(w.killGateway)},
		{"gateway frozen", w.node(w.freezeGateway)},
		{"gateway's HSM restarted", w.node(w.restartHSM)},
		{"authority killed", w.killAuthority},
		{"agent killed", w.each(w.killAgent)},
		{"receiving command killed", w.each(w.killReceiver)},
		{"sending command killed", w.each(w.killSender)},
		{"pcscd restarted", w.each(w.restartPCSCD)},
		{"partition", w.partition},
		{"UDP closed", w.each(w.overTCP)},
	}
	if w.cluster == nil {
		list = append(list, fault{"power loss", w.powerLoss}, fault{"disk full", w.diskFull})
	} else {
		list = append(list, w.failures()...)
	}
	if len(w.nodes) > 1 {
		list = append(list, fault{"gateway drained", w.node(w.drainGateway)})
	}
	if w.opts.next != "" {
		list = append(list, fault{"rolling upgrade", w.upgrade})
	}
	if w.database != nil {
		list = append(list, fault{"database killed", w.killDatabase}, fault{"database cut off", w.cutDatabase})
	}
	if warp.Supported {
		list = append(list, fault{"gateway's clock set", w.node(w.setClock)})
	}
	for kind, set := range map[string]struct {
		weather func(*wan.Weather, float64)
		count   func(wan.Stats) int64
	}{
		"loss":        {func(x *wan.Weather, much float64) { x.Loss = much }, func(s wan.Stats) int64 { return s.Lost }},
		"duplication": {func(x *wan.Weather, much float64) { x.Duplicate = much }, func(s wan.Stats) int64 { return s.Duplicated }},
		"reordering":  {func(x *wan.Weather, much float64) { x.Reorder = much }, func(s wan.Stats) int64 { return s.Reordered }},
		"delay": {func(x *wan.Weather, much float64) {
			x.Delay = time.Duration(much * float64(time.Second))
			x.Jitter = x.Delay / 2
		}, func(s wan.Stats) int64 { return s.Delayed }},
	} {
		list = append(list, fault{kind, w.each(func(ctx context.Context, rng *rand.Rand, p *person) (string, bool, error) {
			much := 0.05 + 0.25*rng.Float64()
			before := set.count(p.udp())
			p.setWeather(func(x *wan.Weather) { set.weather(x, much) })
			w.during(ctx, rng, 3*time.Second, 9*time.Second)
			met := func() int64 { return set.count(p.udp()) - before }
			for range 120 { // with the gateway away there may be hardly a packet to meet
				if met() > 0 || ctx.Err() != nil {
					break
				}
				rest(ctx, 250*time.Millisecond)
			}
			p.setWeather(func(x *wan.Weather) { set.weather(x, 0) })
			n := met()
			return fmt.Sprintf("%d packets of %s", n, p.Name), n > 0, nil
		})})
	}
	slices.SortFunc(list, func(a, b fault) int { return strings.Compare(a.kind, b.kind) })
	if w.opts.only != "" {
		list = slices.DeleteFunc(list, func(f fault) bool { return f.kind != w.opts.only })
	}
	return list
}

// each makes a fault of one that befalls a person, drawn.
func (w *world) each(f func(context.Context, *rand.Rand, *person) (string, bool, error)) func(context.Context, *rand.Rand) (string, bool, error) {
	return func(ctx context.Context, rng *rand.Rand) (string, bool, error) {
		return f(ctx, rng, w.people[names[rng.IntN(len(names))]])
	}
}

// again repeats what fails for two minutes at most.
func again(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		rest(ctx, 300*time.Millisecond)
	}
}

func (w *world) killGateway(ctx context.Context, _ *rand.Rand, n *node) (string, bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Process().Kill()
	return n.Node, true, n.start(ctx)
}

// drainGateway stops a node in order; its devices go to another one at once.
func (w *world) drainGateway(ctx context.Context, rng *rand.Rand, n *node) (string, bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Process().Stop()
	w.during(ctx, rng, time.Second, 6*time.Second)
	return n.Node, true, n.start(ctx)
}

// powerLoss takes the power of the gateway, all of its nodes, and at the same moment its
// database's.
func (w *world) powerLoss(ctx context.Context, _ *rand.Rand) (string, bool, error) {
	for _, n := range w.nodes {
		n.mu.Lock()
		defer n.mu.Unlock()
	}
	db, before := w.database, w.pagesLost()
	if db != nil {
		db.mu.Lock() // first: who waits there for the server waits in vain without power
	}
	for _, v := range w.volumes() {
		v.disk.Cut()
	}
	for _, n := range w.nodes {
		n.Process().Kill()
	}
	w.restored = time.Now() // who is online since before this does not know yet that the gateway has gone
	var err error
	for _, v := range w.places {
		err = errors.Join(err, v.powerCycle())
	}
	if db != nil {
		err = errors.Join(err, db.server.Kill(), db.place.powerCycle())
		db.mu.Unlock()
		err = errors.Join(err, db.revive(ctx))
	}
	if err != nil {
		return "", true, err
	}
	lost := w.pagesLost() - before
	for _, n := range w.nodes {
		err = errors.Join(err, n.start(ctx))
	}
	return fmt.Sprintf("%d pages had not been synced", lost), true, err
}

func (w *world) freezeGateway(ctx context.Context, rng *rand.Rand, n *node) (string, bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	pid := n.Process().Pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return "", false, nil // it is not there; nothing to freeze
	}
	w.during(ctx, rng, time.Second, 6*time.Second)
	return n.Node, true, syscall.Kill(pid, syscall.SIGCONT)
}

// volumes are the disks that must keep what was acknowledged.
func (w *world) volumes() []*volume {
	if w.database != nil {
		return append(w.places[:len(w.places):len(w.places)], &w.database.place)
	}
	return w.places
}

func (w *world) pagesLost() (n int64) {
	for _, v := range w.volumes() {
		n += v.disk.Stats().Lost
	}
	return n
}

// diskFull leaves no room until something has been refused for lack of it. A gateway or
// database that ends for that reason is started again by its operator.
func (w *world) diskFull(ctx context.Context, rng *rand.Rand) (string, bool, error) {
	all := w.volumes()
	store := all[len(all)-1].disk
	before := store.Stats().Refused
	store.SetRoom(0)
	for range 40 {
		if store.Stats().Refused > before || ctx.Err() != nil {
			break
		}
		rest(ctx, 250*time.Millisecond)
	}
	w.during(ctx, rng, time.Second, 5*time.Second)
	store.SetRoom(-1)
	n := store.Stats().Refused - before
	if w.database != nil {
		if err := w.database.revive(ctx); err != nil {
			return "", n > 0, err
		}
	}
	return fmt.Sprintf("%d writes were refused", n), n > 0, w.revive(ctx)
}

// revive starts the nodes that have ended by themselves.
func (w *world) revive(ctx context.Context) (err error) {
	for _, n := range w.nodes {
		err = errors.Join(err, n.revive(ctx))
	}
	return err
}

func (w *world) restartHSM(ctx context.Context, rng *rand.Rand, n *node) (string, bool, error) {
	n.hsmMu.Lock()
	defer n.hsmMu.Unlock()
	n.Token.Kill()
	w.during(ctx, rng, 500*time.Millisecond, 4*time.Second)
	return n.Node, true, errors.Join(again(ctx, n.Token.Start), n.revive(ctx))
}

func (w *world) killAuthority(ctx context.Context, rng *rand.Rand) (string, bool, error) {
	w.authorityMu.Lock()
	defer w.authorityMu.Unlock()
	w.authority.Process().Kill()
	w.during(ctx, rng, 100*time.Millisecond, 3*time.Second)
	return "", true, again(ctx, w.authority.Start)
}

func (w *world) killAgent(ctx context.Context, _ *rand.Rand, p *person) (string, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Name, p.KillAgent(), p.unlock(ctx)
}

func (w *world) killReceiver(_ context.Context, _ *rand.Rand, p *person) (string, bool, error) {
	p.mu.Lock()
	if !p.receiver.Running() {
		p.mu.Unlock()
		return "", false, fmt.Errorf("%s's receive --follow has ended by itself", p.Name)
	}
	p.receiver.Kill()
	p.mu.Unlock()
	return p.Name, true, p.follow()
}

// killSender lets the next `valise send` of a person be killed on its way.
func (w *world) killSender(ctx context.Context, rng *rand.Rand, p *person) (string, bool, error) {
	before := p.killed.Load()
	p.killNext.Store(int64(time.Duration(2+rng.IntN(60)) * time.Millisecond))
	for range 300 { // while a database fails over, nobody begins another
		if p.killed.Load() > before || ctx.Err() != nil {
			break
		}
		rest(ctx, 100*time.Millisecond)
	}
	p.killNext.Store(0)
	return p.Name, p.killed.Load() > before, nil
}

func (w *world) restartPCSCD(ctx context.Context, _ *rand.Rand, p *person) (string, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := again(ctx, p.Card.Reader.RestartPCSCD); err != nil {
		return "", false, err
	}
	return p.Name, true, p.unlock(ctx)
}

// setClock lets the gateway's clock jump, and back after a while. Nobody else's does.
func (w *world) setClock(ctx context.Context, rng *rand.Rand, n *node) (string, bool, error) {
	d := []time.Duration{90 * time.Second, time.Hour, 25 * time.Hour}[rng.IntN(3)]
	if rng.IntN(2) == 0 {
		d = -d
	}
	n.mu.Lock()
	daemon := n.Process()
	var clock *warp.Clock
	var err error
	if daemon.Running() {
		clock, err = warp.Take(daemon.Pid())
	}
	if err == nil && clock != nil {
		err = clock.Set(d)
	}
	n.mu.Unlock()
	if err != nil || clock == nil {
		return "", false, err
	}
	w.during(ctx, rng, 2*time.Second, 10*time.Second)
	n.mu.Lock()
	defer n.mu.Unlock()
	if daemon.Running() { // else its clock went with it
		err = clock.Set(0)
	}
	return fmt.Sprintf("by %v", d), true, err
}

// partition cuts one device off, or all.
func (w *world) partition(ctx context.Context, rng *rand.Rand) (string, bool, error) {
	hit := []*person{w.people[names[rng.IntN(len(names))]]}
	who := hit[0].Name
	if rng.IntN(4) == 0 {
		hit, who = hit[:0], "everybody"
		for _, name := range names {
			hit = append(hit, w.people[name])
		}
	}
	var n int64
	for _, p := range hit {
		n -= p.udp().Cut + p.tcp().Waited
		p.cut(true)
	}
	w.during(ctx, rng, 2*time.Second, 15*time.Second)
	for _, p := range hit {
		p.cut(false)
		n += p.udp().Cut + p.tcp().Waited
	}
	return fmt.Sprintf("%s: %d packets", who, n), n > 0, nil
}

// atOnce is how many faults may overlap.
const atOnce = 3

// harm deals the kinds out like cards, again and again until the time is over, and lets
// them overlap. In between, when all are over, everybody must get a message through.
func (w *world) harm(ctx context.Context, until time.Time) error {
	rng := w.source(2)
	if w.opts.length == 0 {
		return w.recovered(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for round := uint64(0); round == 0 || time.Now().Before(until); round++ {
		deck := w.kinds()
		rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		slots := make(chan struct{}, atOnce)
		var all sync.WaitGroup
		for i, f := range deck {
			if round > 0 && time.Now().After(until) || ctx.Err() != nil {
				break
			}
			slots <- struct{}{}
			own := w.source(1000 + 100*round + uint64(i))
			all.Go(func() {
				defer func() { <-slots }()
				if err := w.suffer(ctx, own, f); err != nil {
					cancel(err)
				}
			})
			rest(ctx, time.Duration(100+rng.IntN(900))*time.Millisecond)
		}
		all.Wait()
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := w.recovered(ctx); err != nil {
			return err
		}
	}
	return nil
}

// suffer lets one fault happen and writes it down; one that met nothing is tried again
// a few times.
func (w *world) suffer(ctx context.Context, rng *rand.Rand, f fault) error {
	for range 5 {
		r := faultRecord{Kind: f.kind, Begin: now()}
		detail, met, err := f.do(ctx, rng)
		r.End, r.Detail = now(), detail
		if met {
			w.faults.add(r)
			w.say("%-26s %s", f.kind, detail)
		}
		if met || err != nil || ctx.Err() != nil {
			if err != nil {
				err = fmt.Errorf("%s: %w", f.kind, err)
			}
			return err
		}
	}
	return nil // the judge misses it if it never happened
}

// recovered waits until everybody has got another message through, and says how long
// that took.
func (w *world) recovered(ctx context.Context) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	before := map[string]int64{}
	for _, p := range w.people {
		before[p.Name] = p.sent.Load()
	}
	for _, p := range w.people {
		for p.sent.Load() == before[p.Name] {
			if ctx.Err() != nil {
				return fmt.Errorf("%s has not got a message through for %v, with nothing broken any more", p.Name, time.Since(begin).Round(time.Second))
			}
			rest(ctx, 50*time.Millisecond)
		}
	}
	w.say("everybody writes again after %v", time.Since(begin).Round(10*time.Millisecond))
	return nil
}
