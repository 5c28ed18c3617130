// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// A teller sends news on a connection of its own, in transactions of their own: one with a
// notification keeps everybody else's from committing until it has, so nothing else is to be
// in it. What comes while some are on their way goes out together with the next.
type teller struct {
	db      *store.DB
	from    process
	channel string
	more    chan struct{}
	stop    context.CancelFunc
	done    chan struct{}

	mu      sync.Mutex
	pending pendingNews // guarded by mu
	closed  bool        // guarded by mu
}

// pendingNews are told once each.
type pendingNews struct {
	mail    map[mailbox.Device]mailbox.Letter
	groups  map[string]struct{}
	arrived map[mailbox.Device]uint64
	notices map[mailbox.Notice]struct{}
	law     uint64
	all     bool
}

func newTeller(db *store.DB, from process, channel string) *teller {
	ctx, stop := context.WithCancel(context.Background())
	t := &teller{db: db, from: from, channel: channel, more: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	go t.run(ctx)
	return t
}

// tell has news sent soon.
func (t *teller) tell(n mailbox.News) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending.add(n)
	select {
	case t.more <- struct{}{}:
	default:
	}
}

func (p *pendingNews) add(n mailbox.News) {
	p.law, p.all = max(p.law, n.Law), p.all || n.All
	if len(p.mail)+len(p.groups)+len(p.arrived)+len(p.notices)+len(n.Mail)+len(n.Groups)+len(n.Arrived)+len(n.Notices) > maxPending {
		*p = pendingNews{law: p.law, all: true}
		return
	}
	if p.mail == nil {
		p.mail, p.groups, p.arrived = make(map[mailbox.Device]mailbox.Letter), make(map[string]struct{}), make(map[mailbox.Device]uint64)
		p.notices = make(map[mailbox.Notice]struct{})
	}
	for _, l := range n.Mail {
		p.addLetter(l)
	}
	for _, g := range n.Groups {
		p.groups[string(g)] = struct{}{}
	}
	for _, x := range n.Notices {
		p.notices[x] = struct{}{}
	}
	for _, s := range n.Arrived {
		p.arrived[s.Device] = max(p.arrived[s.Device], s.Turn)
	}
}

// addLetter keeps one letter a device. One whose number is not known stays so.
func (p *pendingNews) addLetter(l mailbox.Letter) {
	if l.Precedence > mailbox.Flash {
		l.Precedence = 0
	}
	if had, ok := p.mail[l.Device]; ok {
		// What is less urgent is looked for too where the number is not known.
		l.Precedence = max(l.Precedence, had.Precedence)
		if had.Number == 0 || l.Number == 0 {
			l.Number = 0
		} else {
			l.Number = max(l.Number, had.Number)
		}
	}
	p.mail[l.Device] = l
}

// take returns what is pending.
func (t *teller) take() (n mailbox.News) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.pending
	n.Law, n.All = p.law, p.all
	for _, l := range p.mail {
		n.Mail = append(n.Mail, l)
	}
	for g := range p.groups {
		n.Groups = append(n.Groups, []byte(g))
	}
	for d, turn := range p.arrived {
		n.Arrived = append(n.Arrived, mailbox.Seat{Device: d, Turn: turn})
	}
	for x := range p.notices {
		n.Notices = append(n.Notices, x)
	}
	clear(p.notices)
	clear(p.mail)
	clear(p.groups)
	clear(p.arrived)
	p.law, p.all = 0, false
	return n
}

// run sends until ctx ends, and what is pending then.
func (t *teller) run(ctx context.Context) {
	defer close(t.done)
	var line *store.Line
	defer func() {
		if line != nil {
			_ = line.Close()
		}
	}()
	wait := tellPause
	for {
		select {
		case <-ctx.Done():
			line, _ = t.send(context.WithoutCancel(ctx), line, t.take()) // others look for themselves if this fails
			return
		case <-t.more:
		}
		n := t.take()
		var err error
		if line, err = t.send(ctx, line, n); err == nil {
			wait = tellPause
			continue
		}
		t.tell(n) // again
		sleep(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, longTellPause)
	}
}

// send sends news on a line, or a new one, and returns what line there is then.
func (t *teller) send(ctx context.Context, line *store.Line, n mailbox.News) (*store.Line, error) {
	if len(n.Mail)+len(n.Groups)+len(n.Arrived)+len(n.Notices) == 0 && n.Law == 0 && !n.All {
		return line, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	if line == nil {
		var err error
		if line, err = t.db.Line(ctx); err != nil {
			return nil, err
		}
	}
	if err := line.Notify(ctx, t.channel, writeNews(t.from, n)); err != nil {
		_ = line.Close() // one that is of no use
		return nil, err
	}
	return line, nil
}

// close sends what is pending and ends.
func (t *teller) close() {
	t.stop()
	<-t.done
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
