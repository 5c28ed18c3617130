// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/wire"
)

// Several gateways may use one store. What is decided for good is decided there; what this
// one has in memory follows what the others tell (mailbox.News), and because news may be
// lost, it is compared with the store every now and then (others.attend). Nothing that
// must not happen depends on either:
//
//   - What comes over a connection that the device has left for another gateway is not done:
//     each carries the turn in which the device arrived, and the store compares it.
//   - Groups: see package group.
//   - Holds: the store knows by which bulletin they were laid, and refuses an older one's.
//   - Standings, rules and the deny list are each gateway's own: each follows the authority, and
//     one that hears of a newer bulletin asks for it.
//
// What devices may use up (allowances, attempts, tunnels) each gateway counts for itself.

// others is what has to be looked up in the store because of others.
type others struct {
	g    *Gateway
	node mailbox.Node // nil: there are none
	news chan struct{}

	mu     sync.Mutex
	groups map[string]bool // guarded by mu; to be looked at, as somebody waits for a removal there
	all    bool            // guarded by mu; everything is to be looked at
}

func newOthers(g *Gateway) *others {
	node, _ := g.cfg.Store.(mailbox.Node)
	return &others{g: g, node: node, news: make(chan struct{}, 1), groups: make(map[string]bool)}
}

// tell lets the other gateways know, if there are any.
func (o *others) tell(n mailbox.News) {
	if o.node != nil {
		o.node.Tell(n)
	}
}

// hear does what others tell, or has it done: it must return soon.
func (o *others) hear(n mailbox.News) {
	g := o.g
	for _, id := range g.groups.Outdate(n.Groups) {
		if g.duties.waits(id) {
			o.look(id)
		}
	}
	for _, seat := range n.Arrived {
		g.end(seat)
	}
	for _, x := range n.Notices {
		if code := wire.NoticeCode(x.Code); code == wire.NoticeKeyPackagesLow || code == wire.NoticeFiles {
			g.notifyHere(x.Device, code)
		}
	}
	if n.Law > 0 || n.All {
		g.holds.outdate()
	}
	if n.Law > g.Standings().Number() || n.All {
		g.behind()
	}
	if n.All {
		g.groups.OutdateAll()
		o.look()
	}
}

// behind has standings asked for: others have newer ones, or may have.
func (g *Gateway) behind() {
	if g.cfg.Behind != nil {
		g.cfg.Behind()
	}
}

// look has groups looked at; without any, everything.
func (o *others) look(ids ...[]byte) {
	o.mu.Lock()
	for _, id := range ids {
		o.groups[string(id)] = true
	}
	if o.all = o.all || len(ids) == 0 || len(o.groups) > maxDue; o.all {
		clear(o.groups)
	}
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// take returns what is to be looked at.
func (o *others) take() (ids [][]byte, all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.groups {
		ids = append(ids, []byte(id))
	}
	all = o.all
	clear(o.groups)
	o.all = false
	return ids, all
}

// run looks at what news ask for, and at everything now and then, until ctx ends.
func (o *others) run(ctx context.Context) error {
	if o.node == nil {
		return nil
	}
	ticker := time.NewTicker(othersLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.news:
		case <-ticker.C:
			o.look()
			continue
		}
		ids, all := o.take()
		err := o.attend(ctx, ids, all)
		if err != nil && ctx.Err() == nil {
			o.g.log.Warn("what other gateways have done was not looked up; the next round tries again", "error", err)
		}
	}
}

// attend looks at groups, or at everything that others may have changed.
func (o *others) attend(ctx context.Context, ids [][]byte, all bool) error {
	var errs []error
	if all {
		errs = append(errs, o.attendSessions(ctx))
		var err error
		ids, err = o.moved(ctx)
		errs = append(errs, err)
	}
	for _, id := range ids {
		if err := o.g.groups.Visit(ctx, id); err != nil && !isUnknown(err) {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return errors.Join(errs...)
}

// attendSessions ends the connections of devices that have arrived elsewhere since.
func (o *others) attendSessions(ctx context.Context) error {
	seats := o.g.seats()
	for len(seats) > 0 {
		some := seats[:min(len(seats), othersPortion)]
		seats = seats[len(some):]
		moved, err := o.node.Moved(ctx, some)
		if err != nil {
			return err
		}
		left := make(map[mailbox.Device]bool, len(moved))
		for _, d := range moved {
			left[d] = true
		}
		for _, seat := range some {
			if left[seat.Device] {
				o.g.end(mailbox.Seat{Device: seat.Device, Turn: seat.Turn + 1})
			}
		}
	}
	return nil
}

// moved lists the groups from which somebody is to be removed and that are at another epoch
// by now.
func (o *others) moved(ctx context.Context) (ids [][]byte, err error) {
	waiting := o.g.duties.epochs()
	var some [][]byte
	ask := func() error {
		epochs, err := o.node.Epochs(ctx, some)
		for _, id := range some {
			if err == nil && epochs[string(id)] != waiting[string(id)] {
				ids = append(ids, id)
			}
		}
		some = some[:0:0]
		return err
	}
	for id := range waiting {
		if some = append(some, []byte(id)); len(some) == othersPortion {
			if err := ask(); err != nil {
				return ids, err
			}
		}
	}
	if len(some) > 0 {
		err = ask()
	}
	return ids, err
}

// seats lists the connections here, and which arrival of its device each is.
func (g *Gateway) seats() []mailbox.Seat {
	g.mu.Lock()
	defer g.mu.Unlock()
	seats := make([]mailbox.Seat, 0, len(g.sessions))
	for d, s := range g.sessions {
		if turn := s.turn.Load(); turn > 0 {
			seats = append(seats, mailbox.Seat{Device: d, Turn: turn})
		}
	}
	return seats
}

// end ends a device's connection here if it is of an earlier arrival.
func (g *Gateway) end(seat mailbox.Seat) {
	s := g.session(identity.DeviceID(seat.Device))
	if s == nil {
		return
	}
	if turn := s.turn.Load(); turn > 0 && turn < seat.Turn {
		s.close(wire.CloseReplaced, "")
	}
}
