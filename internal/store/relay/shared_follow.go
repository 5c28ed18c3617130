// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// Follow implements mailbox.Node. It has one caller.
func (s *Node) Follow(ctx context.Context, hear func(mailbox.News)) error {
	wait := followPause
	for {
		heard, err := s.listen(ctx, hear)
		if ctx.Err() != nil {
			return nil
		}
		s.node.setDeaf(fmt.Errorf("relay store: news of other gateways are not heard: %w", err))
		if heard {
			wait = followPause
		}
		sleep(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, longFollowPause)
	}
}

// listen hears news on one line for as long as that lives. heard says that it came so far.
func (s *Node) listen(ctx context.Context, hear func(mailbox.News)) (heard bool, err error) {
	p := s.node
	line, err := s.takeLine(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		if ctx.Err() != nil && line.Usable() && p.giveBack(line) {
			return // the store is a node until it is closed
		}
		_ = line.Close() // it may have ended
	}()
	l := &listener{p: p, line: line, hear: hear}
	if err := line.Listen(ctx, p.channel); err != nil {
		return false, err
	}
	if err := l.sign(ctx); err != nil {
		return false, err
	}
	for {
		if err := l.one(ctx); err != nil {
			return l.well, err
		}
	}
}

// takeLine returns the line of the presence, or a new one.
func (s *Shared) takeLine(ctx context.Context) (*store.Line, error) {
	p := s.node
	p.mu.Lock()
	line := p.line
	p.line = nil
	p.mu.Unlock()
	if line != nil && line.Usable() {
		return line, nil
	}
	return s.appear(ctx, p)
}

// giveBack keeps a line for the next Follow, or for leave.
func (p *presence) giveBack(line *store.Line) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.line = line
	return true
}

// A listener is one stretch of listening.
type listener struct {
	p    *presence
	line *store.Line
	hear func(mailbox.News)

	well bool      // All was heard: nothing is missed from then on
	next time.Time // of the next sign of life
	owed bool      // the last sign was not heard yet
}

// one hears one notification, or gives a sign of life when it is time.
func (l *listener) one(ctx context.Context) error {
	until, cancel := context.WithDeadline(ctx, l.next)
	payload, err := l.line.Hear(until)
	cancel()
	switch {
	case err == nil:
		l.heed(payload)
	case ctx.Err() != nil || !errors.Is(until.Err(), context.DeadlineExceeded) || !l.line.Usable():
		return err
	}
	if time.Now().Before(l.next) {
		return nil
	}
	if l.owed {
		return errors.New("what is sent to the server's channel does not come back: is there a connection pooler before it, which cannot carry LISTEN?")
	}
	return l.sign(ctx)
}

// sign says that this gateway lives: in its row, and to itself. Notifications come in their
// order, so when its own comes back it has heard everything up to then.
func (l *listener) sign(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	if err := l.line.Do(ctx, `UPDATE nodes SET seen = `+serverTime+` WHERE id = $1`, l.p.row); err != nil {
		return err
	}
	l.owed, l.next = true, time.Now().Add(signOfLife)
	return l.line.Notify(ctx, l.p.channel, writeNews(l.p.me, mailbox.News{}))
}

// heed does what one notification says.
func (l *listener) heed(payload string) {
	from, n, err := parseNews(payload)
	switch {
	case err != nil:
		n = mailbox.News{All: true} // of a newer version perhaps
	case from == l.p.me:
		l.owed = false
		if l.well {
			return
		}
		// From here on all is heard. What was told before is not.
		l.well = true
		l.hear(mailbox.News{All: true})
		l.p.setDeaf(nil)
		return
	case !l.well:
		return // All will say it
	}
	if len(n.Mail)+len(n.Groups)+len(n.Arrived)+len(n.Notices) > 0 || n.Law > 0 || n.All {
		l.hear(n)
	}
}
