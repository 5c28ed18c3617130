// SPDX-License-Identifier: Apache-2.0

package mailbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// patience is how long tests wait for what will come.
const patience = 2 * time.Minute

// A site is one of several gateways' stores in a test, which may lose what it was to tell, and
// answers.
type site struct {
	*relay.Node
	mute    atomic.Bool // it tells nothing
	unknown atomic.Bool // its transactions happen, and it is not known
}

func (s *site) Tell(n mailbox.News) {
	if !s.mute.Load() {
		s.Node.Tell(n)
	}
}

var errUnknown = errors.New("the connection ended before the answer came")

func (s *site) Apply(ctx context.Context, batch []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	outcomes, err := s.Node.Apply(ctx, batch, acks)
	if err == nil && s.unknown.Load() {
		return nil, errUnknown
	}
	return outcomes, err
}

// openSites opens nodes on a new database, with devices and a group.
func openSites(t testing.TB, devices, nodes int) []*site {
	t.Helper()
	return openSitesOn(t, testenv.Postgres(t).DSN, devices, nodes)
}

func openSitesOn(t testing.TB, dsn string, devices, nodes int) (sites []*site) {
	t.Helper()
	for i := range nodes {
		n, err := relay.OpenNode(t.Context(), relay.SharedConfig{Database: dsn, Node: fmt.Sprint("node-", i)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		sites = append(sites, &site{Node: n})
	}
	found(t, sites[0], devices)
	return sites
}

// hearing runs a box and returns when it hears the others.
func hearing(t testing.TB, cfg mailbox.Config) *mailbox.Box {
	t.Helper()
	all, hear := make(chan struct{}, 1), cfg.Hear
	cfg.Hear = func(n mailbox.News) {
		if hear != nil {
			hear(n)
		}
		if n.All {
			select {
			case all <- struct{}{}:
			default:
			}
		}
	}
	box, _ := run(t, cfg)
	select {
	case <-all:
	case <-time.After(patience):
		t.Fatal("the box hears nothing")
	}
	return box
}

func submit(t testing.TB, box *mailbox.Box, s *mailbox.Submission, want mailbox.Verdict) {
	t.Helper()
	if o, err := box.Do(t.Context(), s); err != nil || o.Verdict != want {
		t.Fatalf("counter %d: %+v, %v; want verdict %d", s.Counter, o, err, want)
	}
}

func subscribe(t testing.TB, box *mailbox.Box, d int) *mailbox.Subscription {
	t.Helper()
	sub, _, err := box.Subscribe(t.Context(), device(d))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Close)
	return sub
}

// await reads what a device is woken for, in its order, until it has the number last. Nobody
// but the wake-up has it look.
func await(t testing.TB, sub *mailbox.Subscription, after, last uint64) (texts []string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		entries, err := sub.Next(t.Context(), after, 16, 1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Number != after+1 {
				t.Fatalf("number %d comes after %d", e.Number, after)
			}
			after, texts = e.Number, append(texts, string(e.Payload))
		}
		switch {
		case after >= last:
			return texts
		case len(entries) > 0:
			continue
		}
		select {
		case <-sub.Wake():
		case <-timeout:
			t.Fatalf("not woken after number %d, want %d", after, last)
		}
	}
}

// quiet says that a reader knows of nothing that it would have to look for.
func quiet(sub *mailbox.Subscription, after uint64) bool {
	entries, stored := sub.Recent(after, 16, 1<<20)
	return len(entries) == 0 && !stored
}

// settle takes what All has a reader look for.
func settle(t testing.TB, sub *mailbox.Subscription, after uint64) {
	t.Helper()
	if entries, err := sub.Next(t.Context(), after, 1, 1<<20, nil); err != nil || len(entries) > 0 {
		t.Fatal(entries, err)
	}
}

// What one gateway takes in wakes the recipient at another, the urgent as urgent, and tells
// that gateway which groups have moved. Of what is for its own readers alone it tells nobody.
func TestWokenAtAnotherNode(t *testing.T) {
	sites := openSites(t, 4, 2)
	groups := make(chan mailbox.News, 100)
	here := hearing(t, mailbox.Config{Store: sites[0], SlowLook: time.Hour})
	there := hearing(t, mailbox.Config{Store: sites[1], SlowLook: time.Hour, Hear: func(n mailbox.News) {
		if len(n.Groups)+len(n.Mail) > 0 {
			groups <- n
		}
	}})
	one, two := subscribe(t, there, 1), subscribe(t, here, 2)
	before, _ := one.Pressing(mailbox.Flash)
	for counter := uint64(1); counter <= 5; counter++ {
		submit(t, here, message(3, counter, fmt.Sprint("text ", counter), 1), mailbox.Done)
	}
	if got := fmt.Sprint(await(t, one, 0, 5)); got != "[text 1 text 2 text 3 text 4 text 5]" {
		t.Error(got)
	}
	if after, _ := one.Pressing(mailbox.Flash); after != before {
		t.Error("what is not urgent is looked for among what is")
	}
	urgent := message(3, 6, "urgent", 1)
	urgent.Precedence = mailbox.Flash
	submit(t, here, urgent, mailbox.Done)
	await(t, one, 5, 6)
	if after, upTo := one.Pressing(mailbox.Flash); after == before || upTo < 6 {
		t.Errorf("turn %d after %d, up to %d", after, before, upTo)
	}
	submit(t, here, message(3, 7, "for one who is here", 2), mailbox.Done)
	await(t, two, 0, 1)
	step := message(0, 2, "commit", 1)
	step.Messages[0].Kind, step.Step = mailbox.Commit, &mailbox.Step{Group: []byte("g"), From: 0, To: 1, Info: []byte("i")}
	submit(t, here, step, mailbox.Done)
	timeout := time.After(patience)
	for {
		select {
		case n := <-groups:
			for _, l := range n.Mail {
				if l.Device == device(2) {
					t.Error("what is for a reader here is told of")
				}
			}
			if len(n.Groups) == 0 {
				continue
			}
			if string(n.Groups[0]) != "g" {
				t.Errorf("%q", n.Groups)
			}
			return
		case <-timeout:
			t.Fatal("nobody is told that the group has moved")
		}
	}
}

// With every piece of news lost, the recipient at another gateway has the mail all the same,
// and looks among the urgent for it, by a slow look. Without one it would wait for ever.
func TestAllNewsLost(t *testing.T) {
	sites := openSites(t, 3, 3)
	sites[0].mute.Store(true)
	here := hearing(t, mailbox.Config{Store: sites[0], SlowLook: time.Hour})
	waiting := subscribe(t, hearing(t, mailbox.Config{Store: sites[1], SlowLook: time.Hour}), 1)
	settle(t, waiting, 0)
	looking := subscribe(t, hearing(t, mailbox.Config{Store: sites[2], SlowLook: 5 * time.Millisecond}), 2)
	before, _ := looking.Pressing(mailbox.Immediate)
	urgent := message(0, 2, "lost", 2)
	urgent.Precedence = mailbox.Immediate
	urgent.Messages[0].To = append(urgent.Messages[0].To, device(1))
	submit(t, here, urgent, mailbox.Done)
	submit(t, here, message(0, 3, "lost too", 2), mailbox.Done)
	if got := fmt.Sprint(await(t, looking, 0, 2)); got != "[lost lost too]" {
		t.Error(got)
	}
	if after, _ := looking.Pressing(mailbox.Immediate); after == before {
		t.Error("what may be urgent is not looked for as such")
	}
	if !quiet(waiting, 0) {
		t.Error("control: somebody has told after all")
	}
}

// A gateway ends between commit and news, and its device repeats the submission at another
// one: that has the recipients woken, there and at a third. The same where a gateway does not
// know whether a submission was done, and nobody repeats it.
func TestRepeatedAtAnotherNode(t *testing.T) {
	sites := openSites(t, 4, 3)
	var boxes []*mailbox.Box
	for _, s := range sites {
		boxes = append(boxes, hearing(t, mailbox.Config{Store: s, SlowLook: time.Hour}))
	}
	near, far := subscribe(t, boxes[1], 1), subscribe(t, boxes[2], 2)
	settle(t, near, 0)
	settle(t, far, 0)
	send := message(0, 2, "once", 1)
	send.Messages[0].To = append(send.Messages[0].To, device(2))
	send.Precedence = mailbox.Flash
	sites[0].mute.Store(true)
	submit(t, boxes[0], send, mailbox.Done)
	if !quiet(near, 0) || !quiet(far, 0) {
		t.Error("control: somebody has told after all")
	}
	before, _ := far.Pressing(mailbox.Flash)
	submit(t, boxes[1], send, mailbox.Repeated)
	await(t, near, 0, 1)
	await(t, far, 0, 1)
	if after, _ := far.Pressing(mailbox.Flash); after == before {
		t.Error("what may be urgent is not looked for as such")
	}
	sites[0].mute.Store(false)
	sites[0].unknown.Store(true)
	if _, err := boxes[0].Do(t.Context(), message(0, 3, "unknown", 2)); !errors.Is(err, errUnknown) {
		t.Error(err)
	}
	await(t, far, 1, 2)
}

// A device has moved to another gateway, and the one where it was has not noticed: what comes
// for it there meanwhile wakes it as soon as the old connection ends.
func TestReaderMoves(t *testing.T) {
	sites := openSites(t, 2, 2)
	from, to := hearing(t, mailbox.Config{Store: sites[0], SlowLook: time.Hour}), hearing(t, mailbox.Config{Store: sites[1], SlowLook: time.Hour})
	old := subscribe(t, from, 1)
	now := subscribe(t, to, 1)
	settle(t, now, 0)
	submit(t, from, message(0, 2, "x", 1), mailbox.Done)
	if !quiet(now, 0) {
		t.Error("control: it is told at once, and nothing of this test holds")
	}
	old.Close()
	await(t, now, 0, 1)
}

// Three gateways take in, deliver and acknowledge at once, devices go from one to the other
// and repeat what they sent last, and much of the news is lost: every device gets what was
// acknowledged, once and in each sender's order.
func TestManyNodes(t *testing.T) {
	const devices, rounds = 6, 40
	sites := openSites(t, devices, 3)
	var boxes []*mailbox.Box
	for _, s := range sites {
		boxes = append(boxes, hearing(t, mailbox.Config{Store: s, SlowLook: 50 * time.Millisecond}))
	}
	sites[2].mute.Store(true)
	var all sync.WaitGroup
	for d := range devices {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(d), 7))
			for i := range rounds {
				send := message(d, uint64(i)+1, fmt.Sprintf("%d:%d", d, i), 0)
				if d == 0 { // its first founded the group
					send.Counter++
				}
				send.Messages[0].To = nil
				for to := range devices {
					send.Messages[0].To = append(send.Messages[0].To, device(to))
				}
				if o, err := boxes[r.IntN(3)].Do(t.Context(), send); err != nil || o.Verdict != mailbox.Done {
					t.Errorf("%d:%d: %+v, %v", d, i, o, err)
					return
				}
				if i%4 == 0 {
					if o, err := boxes[r.IntN(3)].Do(t.Context(), send); err != nil || o.Verdict != mailbox.Repeated {
						t.Errorf("%d:%d again: %+v, %v", d, i, o, err)
					}
				}
			}
		})
		all.Go(func() {
			r, next := rand.New(rand.NewPCG(uint64(d), 8)), make(map[int]int)
			for after := uint64(0); after < devices*rounds; {
				box := boxes[r.IntN(3)]
				sub, _, err := box.Subscribe(t.Context(), device(d))
				if err != nil {
					t.Error(err)
					return
				}
				upTo := min(after+1+r.Uint64N(60), devices*rounds)
				for _, text := range await(t, sub, after, upTo) {
					var from, i int
					if n, err := fmt.Sscanf(text, "%d:%d", &from, &i); n != 2 || err != nil || i != next[from] {
						t.Errorf("device %d has %q, want number %d", d, text, next[from])
					}
					next[from], after = i+1, after+1
				}
				box.Ack(device(d), after)
				sub.Close()
			}
		})
	}
	all.Wait()
	for until := time.Now().Add(patience); ; { // acknowledgements come in batches
		totals, err := sites[0].Totals(t.Context())
		if err == nil && totals.Pointers == 0 && totals.Messages == 0 {
			return
		}
		if err != nil || time.Now().After(until) {
			t.Fatalf("left behind: %+v, %v", totals, err)
		}
	}
}
