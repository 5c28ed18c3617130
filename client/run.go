// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"valise/client/vault"
	"valise/wire"
)

// The names of a State.
const (
	StateOffline    = "offline"
	StateConnecting = "connecting"
	StateOnline     = "online"
)

// A State says how the connection is.
type State struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	Error string    `json:"error,omitempty"` // of the last attempt

	// Transport is quic, or tcp where UDP does not pass; empty while offline. Node is the
	// address of the gateway's node.
	Transport string `json:"transport,omitempty"`
	Node      string `json:"node,omitempty"`
}

// ErrStopped wraps what makes an engine give up: its vault fails.
var ErrStopped = errors.New("stopped")

// errBehind restarts the connection with a new incarnation.
var errBehind = errors.New("this device's state was an older copy")

// Run keeps the engine connected until ctx ends. It returns an error wrapping
// ErrStopped if the vault fails: then nothing may go on.
func (e *Engine) Run(ctx context.Context) error {
	defer e.setState(StateOffline, nil)
	if err := e.prune(); err != nil {
		return fmt.Errorf("%w: %w", ErrStopped, err)
	}
	pause := time.Duration(0)
	for {
		e.setState(StateConnecting, nil)
		err := e.session(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, ErrStopped) {
			if mended, failed := e.mended(err); mended && failed == nil {
				continue
			}
			e.cfg.Log.Error("engine stopped", "error", err)
			return err
		}
		if errors.Is(err, errBehind) || errors.Is(err, errUDPPasses) || errors.Is(err, errUnsure) {
			continue
		}
		e.cfg.Log.Info("connection ended", "error", err)
		pause = pauseAfter(pause, e.online())
		e.setState(StateOffline, err)
		if errors.Is(err, errReplaced) || errors.Is(err, errNotAdmitted) || errors.Is(err, errExpired) {
			pause = lastBackoff // nothing changes by asking again at once
		}
		if !sleep(ctx, e.untilNext(err, pause)) {
			return context.Cause(ctx)
		}
	}
}

// pauseAfter is the pause after a connection that was online for so long, 0 if it never
// was. One that held for longer than the pause before it was a good one: a gateway that
// is restarted again and again is not waited for longer each time.
func pauseAfter(before, online time.Duration) time.Duration {
	if online > max(before, firstBackoff) {
		return firstBackoff
	}
	return min(max(2*before, firstBackoff), lastBackoff)
}

// session is the life of one connection.
func (e *Engine) session(ctx context.Context) (err error) {
	e.mu.Lock()
	hello := e.hello()
	e.mu.Unlock()
	l, err := e.dial(ctx, hello)
	if err != nil {
		return err
	}
	defer l.close()
	defer func() { e.left(l.line.node, err) }()
	if err := e.admit(l, hello); err != nil {
		l.fail(err)
		return err
	}
	if err := e.consult(ctx, l); err != nil {
		return err
	}
	e.setLink(l)
	defer e.setLink(nil)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := []func(context.Context, *link) error{e.receive, e.pump, e.upload, e.followFiles, e.probe, e.lookOut}
	ended := make(chan error, len(work))
	for _, f := range work {
		go func() { ended <- f(ctx, l) }()
	}
	err = <-ended
	cancel(err)
	l.fail(err)
	for range len(work) - 1 {
		if other := <-ended; errors.Is(other, ErrStopped) || errors.Is(other, errBehind) {
			err = other
		}
	}
	return err
}

// untilNext is the pause before the next attempt: what the gateway asked for, or ours,
// with jitter, so that the devices of a gateway that was restarted do not come at once.
func (e *Engine) untilNext(err error, pause time.Duration) time.Duration {
	var shutdown *shutdownError
	if errors.As(err, &shutdown) && shutdown.back > 0 {
		return shutdown.back + rand.N(shutdown.back/10+time.Millisecond)
	}
	if elsewhere(err) && e.places.others(e.now) {
		return rand.N(moveJitter)
	}
	return pause/2 + rand.N(pause)
}

// elsewhere says whether another node may give another answer.
func elsewhere(err error) bool {
	return !errors.Is(err, errReplaced) && !errors.Is(err, errNotAdmitted) && !errors.Is(err, errExpired)
}

// left notes that a node is of no use for a while: it has ended, stops, or was not to be
// heard any more. A connection that this device ended itself says nothing of it.
func (e *Engine) left(n node, err error) {
	for _, own := range []error{ErrStopped, errBehind, errUDPPasses, errUnsure, context.Canceled} {
		if errors.Is(err, own) {
			return
		}
	}
	if !elsewhere(err) {
		return
	}
	wait := nodeAvoid
	var shutdown *shutdownError
	if errors.As(err, &shutdown) {
		wait = max(wait, shutdown.back)
	}
	e.places.failed(n, e.now(), min(wait, nodeAvoidMost))
}

// probe asks the gateway for a sign of life: often while the link is in use, seldom
// otherwise. Unlike QUIC's own keep-alives its packets are long enough to be answered
// with a stateless reset by a gateway that was killed and is back, so that a device
// that only listens notices it too.
func (e *Engine) probe(ctx context.Context, l *link) error {
	tick := time.NewTicker(probeUsed)
	defer tick.Stop()
	l.use()
	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-l.dead:
			return l.cause()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !l.inUse() && time.Since(last) < probeIdle {
			continue
		}
		last = time.Now()
		if err := e.sign(ctx, l); err != nil {
			return err
		}
	}
}

// errGone ends a connection to a node that is not there any more.
var errGone = errors.New("nothing answers at the gateway's address any more")

// sign asks for one sign of life. While it is awaited, it is looked whether the node is
// there at all: one that was killed leaves a host that says so, or is silent where others
// are heard.
func (e *Engine) sign(ctx context.Context, l *link) error {
	if l.line.way == wayQUIC {
		doubt, settled := context.WithCancel(ctx)
		defer settled()
		go func() {
			if sleep(doubt, doubtAfter) && e.gone(doubt, l.line.node) && doubt.Err() == nil {
				_ = l.fail(errGone)
			}
		}()
	}
	return l.ping(ctx)
}

// gone says whether a node is not there any more.
func (e *Engine) gone(ctx context.Context, n node) bool {
	switch udpPasses(ctx, n.udp, goneTries) {
	case answered:
		return false
	case refused:
		return true
	}
	others, err := e.nodes(ctx)
	return err == nil && answersElsewhere(ctx, n, others)
}

// answersElsewhere tells a node that is silent from a network that is.
func answersElsewhere(ctx context.Context, n node, nodes []node) bool {
	for _, o := range nodes {
		if o.udp != n.udp && udpPasses(ctx, o.udp, 1) == answered {
			return true
		}
	}
	return false
}

// admit compares the gateway's Welcome with what this state believes.
func (e *Engine) admit(l *link, hello *wire.Hello) error {
	w := l.welcome
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.Device != [32]byte(e.self) {
		return errors.New("the gateway takes this device for another one")
	}
	if w.Behind(hello) {
		return e.behind(w)
	}
	e.skew = time.UnixMilli(int64(w.Time)).Sub(e.now()).Round(time.Second)
	e.stock = int(w.KeyPackages)
	e.drained = false
	clear(e.want)
	done := hello.Counter
	if e.slot != nil {
		done-- // the slot's submission may or may not have arrived
	}
	if w.Counter >= done && e.meta.Begun {
		return stopped(e.sureBy(w))
	}
	err := e.update(func(c *change) error {
		c.meta.Begun = true
		if w.Counter >= done {
			return nil
		}
		// The gateway has done less than it acknowledged: it was restored from a
		// backup. Its mark counts; the numbers go on from there.
		e.cfg.Log.Warn("gateway has forgotten submissions", "acknowledged", done, "mark", w.Counter)
		c.meta.Counter, c.meta.Ahead = w.Counter, true
		if e.slot == nil {
			return nil
		}
		s := *e.slot
		if err := s.renumber(w.Counter + 1); err != nil {
			return err
		}
		c.meta.Counter++
		return c.keepSlot(&s)
	})
	return stopped(err)
}

// behind begins a new life: this state is a copy of an older one. Group secrets and
// KeyPackages are forgotten, for the newer state may have used them; what waits to
// be sent stays, and who has it already drops it by its id.
func (e *Engine) behind(w *wire.Welcome) error {
	e.cfg.Log.Warn("state is an older copy: new incarnation, resync of all groups", "cursor", e.meta.Cursor, "acknowledged", w.Acknowledged)
	clear(e.groups)
	// A gateway that does not know the device at all was restored: it is not this state
	// that is older.
	lost := w.Incarnation != [16]byte{}
	err := e.update(func(c *change) error {
		if err := e.loosen(c); err != nil {
			return err
		}
		known := e.meta.Cursor > 0 || e.meta.Counter > 0
		if err := c.DeleteAll(tableSubmitted, c.meta.Incarnation); err != nil {
			return err
		}
		c.newLife()
		c.meta.Cursor = max(c.meta.Cursor, w.Acknowledged)
		c.meta.LastResort = 0
		if err := c.DeleteAll(tablePackage, nil); err != nil {
			return err
		}
		for _, old := range e.conversations {
			if _, err := e.keepView(c, old); err != nil {
				return err
			}
			if err := c.DeleteAll(tableGroup, old.Group); err != nil {
				return err
			}
			if old.State == stateCandidate {
				if err := c.drop(old); err != nil {
					return err
				}
			}
			if old.State == stateBroken {
				conv := old.edit()
				conv.Group, conv.State, conv.Founding, conv.Lost = conv.Predecessor, stateResync, 0, lost
				if err := errors.Join(c.end(old.Founding, nil), c.put(conv)); err != nil {
					return err
				}
				continue
			}
			if old.State != stateActive && old.State != stateResync {
				continue
			}
			conv := old.edit()
			if conv.State, conv.Lost = stateResync, lost; !lost {
				conv.Patient = e.now().Add(foundPatience).Unix()
			}
			if err := c.put(conv); err != nil {
				return err
			}
		}
		if !known {
			return nil
		}
		return c.log(&eventRecord{Event: Event{Kind: EventResynced, Time: e.now()}})
	})
	if err != nil {
		return stopped(err)
	}
	return errBehind
}

// loosen takes the submission under way back to what it was made from.
func (e *Engine) loosen(c *change) error {
	s := e.slot
	if s == nil {
		return nil
	}
	if s.Intent != 0 {
		in, err := getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(s.Intent))
		if err != nil || in == nil {
			return errors.Join(err, c.emptySlot(false))
		}
		if s.Kind == intentContent {
			in.Sequence = s.Sequence
		}
		if err := c.keepIntent(in); err != nil {
			return err
		}
	}
	return c.emptySlot(false)
}

func (e *Engine) cursor() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.meta.Cursor
}

func (e *Engine) setLink(l *link) {
	e.mu.Lock()
	e.link = l
	e.mu.Unlock()
	if l != nil {
		e.setState(StateOnline, nil)
		return
	}
	e.bell.ring()
}

func (e *Engine) setState(name string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := State{Name: name, Since: e.now()}
	if err != nil {
		s.Error = err.Error()
	} else if name == StateConnecting {
		s.Error = e.state.Error
	}
	if name == StateOnline && e.link != nil {
		s.Transport, s.Node = e.link.line.way, e.link.line.node.udp
	}
	e.state = s
	e.bell.ring()
}

// online is for how long the connection has been there.
func (e *Engine) online() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state.Name != StateOnline {
		return 0
	}
	return e.now().Sub(e.state.Since)
}

// State returns how the connection is.
func (e *Engine) State() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state
}

// Changed returns a channel that is closed at the next change of anything: state,
// events, what is queued.
func (e *Engine) Changed() <-chan struct{} { return e.bell.wait() }

func stopped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrStopped, err)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// prune forgets what has served its time.
func (e *Engine) prune() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.update(func(c *change) error {
		list, err := c.List(tablePackage, nil)
		if err != nil {
			return err
		}
		for _, cell := range list {
			p, err := decode[packageRecord](tablePackage, cell.Value)
			if err != nil {
				return err
			}
			if e.now().Sub(time.Unix(p.Made, 0)) < secretsPeriod {
				continue
			}
			if err := c.Delete(tablePackage, nil, cell.Row); err != nil {
				return err
			}
		}
		return nil
	})
}
