// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"math"
	"time"
)

// others is what a Box has beside it where several gateways use its store; with a nil node
// it does nothing.
type others struct {
	node Node
	hear func(News)
	look time.Duration
	news News // the committer's: what the batch that is being done will tell
}

func newOthers(cfg Config) others {
	node, _ := cfg.Store.(Node)
	return others{node: node, hear: cfg.Hear, look: cfg.SlowLook}
}

// Deaf says why nothing is heard now of what other gateways do; nil: it is, or there are none.
func (b *Box) Deaf() error {
	if b.others.node == nil {
		return nil
	}
	return b.others.node.Deaf()
}

// Tell has the other gateways told; where there are none it does nothing.
func (b *Box) Tell(n News) {
	if b.others.node != nil {
		b.others.node.Tell(n)
	}
}

// follow listens to the others until ctx ends, and looks now and then for what was not told.
func (b *Box) follow(ctx context.Context) error {
	if b.others.node == nil {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		b.lookSlowly(ctx)
	}()
	err := b.others.node.Follow(ctx, b.heed)
	stop()
	<-looked
	return err
}

// heed does what news ask for: readers that are here look into the store.
func (b *Box) heed(n News) {
	if n.All {
		for _, s := range b.subscriptions() {
			s.pressAll()
			s.doubt()
		}
	}
	for _, l := range n.Mail {
		b.mu.Lock()
		reader := b.readers[l.Device]
		b.mu.Unlock()
		if reader != nil {
			reader.heed(l)
		}
	}
	if b.others.hear != nil {
		b.others.hear(n)
	}
}

// heed lets the reader look for a letter.
func (s *Subscription) heed(l Letter) {
	upTo := l.Number
	if l.Number == 0 {
		upTo = math.MaxUint64
	}
	if l.Precedence >= Immediate && l.Precedence <= Flash {
		s.press(l.Precedence, upTo)
	}
	if l.Number == 0 {
		s.doubt()
		return
	}
	s.mu.Lock()
	s.last = max(s.last, l.Number)
	s.mu.Unlock()
	s.nudge()
}

// lookSlowly compares what the readers know of with what is in the store, in large portions:
// it finds what no news has told of, because the gateway that was to tell it has ended.
func (b *Box) lookSlowly(ctx context.Context) {
	ticker := time.NewTicker(b.others.look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// An error says that the database is away: its return is news, and the next look is soon.
		_ = b.lookOnce(ctx)
	}
}

// lookOnce looks once for all readers.
func (b *Box) lookOnce(ctx context.Context) error {
	all := b.subscriptions()
	for len(all) > 0 {
		some := all[:min(len(all), lookPortion)]
		all = all[len(some):]
		devices := make([]Device, len(some))
		for i, s := range some {
			devices[i] = s.device
		}
		latest, err := b.others.node.Latest(ctx, devices)
		if err != nil {
			return err
		}
		for _, s := range some {
			s.catchUp(latest[s.device])
		}
	}
	return nil
}

// catchUp wakes the reader if there is mail that it was not told of.
func (s *Subscription) catchUp(last uint64) {
	s.mu.Lock()
	behind := last > s.last
	s.last = max(s.last, last)
	s.mu.Unlock()
	if behind {
		s.pressAll()
		s.doubt()
	}
}

func (b *Box) subscriptions() []*Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*Subscription, 0, len(b.readers))
	for _, s := range b.readers {
		all = append(all, s)
	}
	return all
}

func (s *Subscription) pressAll() {
	for p := Immediate; p <= Flash; p++ {
		s.press(p, math.MaxUint64)
	}
}

// note keeps for send that a letter is for a device that may be elsewhere: one that reads
// here is not, as far as is heard.
func (o *others) note(l Letter, here bool) {
	if o.node != nil && (!here || o.node.Deaf() != nil) {
		o.news.Mail = append(o.news.Mail, l)
	}
}

// noteGroup keeps for send that a group has moved.
func (o *others) noteGroup(sub *Submission) {
	if o.node != nil && sub.Step != nil {
		o.news.Groups = append(o.news.Groups, sub.Step.Group)
	}
}

// send tells what was noted.
func (o *others) send() {
	if len(o.news.Mail)+len(o.news.Groups) == 0 {
		return
	}
	o.node.Tell(o.news)
	o.news.Mail, o.news.Groups = o.news.Mail[:0], o.news.Groups[:0]
}
