// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"valise/mls"
	"valise/wire"
)

// dial is a clock that stands still until the test moves it.
type dial struct {
	mu  sync.Mutex
	now time.Time
}

func (d *dial) Now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *dial) turn(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

// Every member has a turn of its own, whether it has seen the last healing or not; the
// one behind the last healer comes first, and in the end everybody's turn comes.
func TestTurns(t *testing.T) {
	var members []mls.Member
	for _, leaf := range []mls.LeafIndex{0, 1, 3, 4, 7, 8} {
		members = append(members, mls.Member{Leaf: leaf})
	}
	for healer := range mls.LeafIndex(10) { // gaps and the leaf of somebody removed among them
		taken := map[int]string{}
		for _, m := range members {
			for _, known := range []bool{true, false} {
				h := healing{Known: known, Healer: healer}
				turn := h.turnOf(m.Leaf, members)
				who := fmt.Sprintf("leaf %d, known %v", m.Leaf, known)
				if other := taken[turn]; other != "" {
					t.Fatalf("after %d: %s and %s have the same turn %d", healer, other, who, turn)
				}
				taken[turn] = who
				if turn > 2*len(members) {
					t.Fatalf("after %d: %s waits for turn %d", healer, who, turn)
				}
			}
		}
	}
	healed := map[mls.LeafIndex]int{}
	h := healing{Known: true, Healer: 4}
	for range 3 * len(members) {
		first := slices.MinFunc(members, func(a, b mls.Member) int { return h.turnOf(a.Leaf, members) - h.turnOf(b.Leaf, members) })
		h.Healer = first.Leaf
		healed[first.Leaf]++
	}
	for _, m := range members {
		if healed[m.Leaf] != 3 {
			t.Errorf("leaf %d was healed %d times in three rounds", m.Leaf, healed[m.Leaf])
		}
	}
}

// An epoch is old after 20 messages or an hour with traffic, and never without; turns
// begin at a lull, though not later than the policy's patience, and not before the
// device is online.
func TestDue(t *testing.T) {
	start := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	for name, c := range map[string]struct {
		h      healing
		online time.Time
		want   time.Time
	}{
		"one message":          {healing{Messages: 1, First: at(0), Last: at(0)}, at(0), at(3600)},
		"twenty messages":      {healing{Messages: 20, First: at(0), Last: at(50), Full: at(50)}, at(0), at(51)},
		"traffic goes on":      {healing{Messages: 30, First: at(0), Last: at(60), Full: at(50)}, at(0), at(61)},
		"traffic does not end": {healing{Messages: 300, First: at(0), Last: at(500), Full: at(50)}, at(0), at(80)},
		"back after days":      {healing{Messages: 20, First: at(0), Last: at(50), Full: at(50)}, at(200000), at(200000)},
	} {
		if got, ok := c.h.due(c.online); !ok || !got.Equal(c.want) {
			t.Errorf("%s: due %v, want %v", name, got, c.want)
		}
	}
	if _, ok := (&healing{Epoch: 3}).due(start); ok {
		t.Error("an epoch without messages is due")
	}
}

// watch looks at each submission of a device as it leaves, and fails the test if a
// healing commit goes before a queued content of the same conversation.
func (d *device) watch(heals func(by *device, epoch uint64)) {
	d.setCrash(func(point string) error {
		if point != "sealed" { // elsewhere the slot is another goroutine's
			return nil
		}
		s := d.slot
		if s == nil || !s.heals() {
			return nil
		}
		if len(d.backlog.numbers[s.Conversation]) > 0 {
			return errors.New("a healing commit was made while something waited")
		}
		heals(d, s.Epoch)
		return nil
	})
}

func (d *device) epoch(conv ConversationID) uint64 {
	for _, c := range d.Conversations() {
		if c.ID == conv {
			return c.Epoch
		}
	}
	return 0
}

// A group of ten with traffic heals after every 20 messages, and after an hour with
// less; the members take turns, one of them is offline all the time, no commit loses a
// race, and no content waits for one.
func TestHealingInGroupOfTen(t *testing.T) {
	w := newWorld(t)
	clock := &dial{now: time.Now()}
	var all []*device
	for i := range 10 {
		d := w.deviceWith(fmt.Sprint("m", i), clock.Now)
		all = append(all, d.reachable())
	}
	conv := all[0].with(t, all[1:]...)
	all[0].says(conv, "begin")
	for _, d := range all[1:] {
		d.gets("begin")
	}
	offline := all[4]
	offline.kill()
	online := slices.Delete(slices.Clone(all), 4, 5)

	var mu sync.Mutex
	healers := map[*device]int{}
	commits := 0
	for _, d := range online {
		d.watch(func(by *device, _ uint64) {
			mu.Lock()
			defer mu.Unlock()
			healers[by]++
			commits++
		})
	}
	epoch := all[0].epoch(conv)
	// pass lets time pass step by step; in each all that happens is finished.
	pass := func(d time.Duration, step time.Duration) {
		for end := clock.Now().Add(d); clock.Now().Before(end); {
			clock.turn(step)
			for _, o := range online {
				o.bell.ring()
				o.until("rests", o.idle)
			}
			top := slices.Max(epochsOf(online, conv))
			for _, o := range online {
				o.until("follows", func() bool { return o.epoch(conv) == top && o.idle() })
			}
		}
	}
	const (
		rounds = 10
		step   = healTurn * 5 / 6 // so that no two turns begin in one step
	)
	for round := range rounds {
		for i := range healAfter {
			online[(round+i)%len(online)].says(conv, fmt.Sprintf("%d.%d", round, i))
			if i == 10 {
				pass(2*time.Second, 2*time.Second)
			}
		}
		for _, d := range online {
			d.until("has all", func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				for _, h := range d.healings {
					if h.Epoch == epoch && h.Messages >= healAfter {
						return true
					}
				}
				return false
			})
		}
		for left := (healLull + 2*healTurn*time.Duration(len(all)+1)) / step; left > 0 && all[0].epoch(conv) == epoch; left-- {
			pass(step, step)
		}
		pass(3*healTurn, step) // the turns of those behind the healer
		got := all[0].epoch(conv)
		if got != epoch+1 {
			t.Fatalf("round %d: epoch %d after %d, want one commit", round, got, epoch)
		}
		epoch = got
	}
	if w.reported("stale_epoch") {
		t.Errorf("commits raced or messages came too late: %q", w.reports)
	}
	if len(healers) != len(online) {
		t.Errorf("in %d rounds %d of %d members healed", rounds, len(healers), len(online))
	}

	// Little traffic: an hour after the first message, not before.
	online[3].says(conv, "a single one")
	pass(healWithin-10*time.Minute, 10*time.Minute)
	pass(9*time.Minute, time.Minute)
	if got := all[0].epoch(conv); got != epoch {
		t.Fatalf("healed before the hour was over: epoch %d, was %d", got, epoch)
	}
	pass(time.Minute+2*healTurn*time.Duration(len(all)), healTurn/2)
	if got := all[0].epoch(conv); got != epoch+1 {
		t.Fatalf("epoch %d after %d: not healed after an hour", got, epoch)
	}
	// None: never.
	pass(5*time.Hour, time.Hour)
	if got := all[0].epoch(conv); got != epoch+1 {
		t.Fatalf("healed without traffic: epoch %d", got)
	}
	t.Logf("%d healing commits for %d messages and one quiet hour, 0 lost races, healers %d of %d", commits, rounds*healAfter+1, len(healers), len(online))

	// Who was offline follows all of it.
	offline.start()
	offline.until("catches up", func() bool { return offline.epoch(conv) == epoch+1 })
	offline.gets("0.0", fmt.Sprintf("%d.%d", rounds-1, healAfter-1))
}

func epochsOf(list []*device, conv ConversationID) []uint64 {
	var out []uint64
	for _, d := range list {
		out = append(out, d.epoch(conv))
	}
	return out
}

// idle says that a device has nothing to do at this moment of its clock.
func (d *device) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.slot != nil || !d.drained {
		return false
	}
	for group, h := range d.healings {
		if at, ok := d.healAt(group, h); ok && !d.now().Before(at) {
			return false
		}
	}
	return true
}

// A content that is queued when a healing is due leaves first, and the commit waits
// until the conversation is quiet again.
func TestContentBeforeHealing(t *testing.T) {
	w := newWorld(t)
	clock := &dial{now: time.Now()}
	alice, bob := w.deviceWith("alice", clock.Now).reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	for i := range healAfter {
		alice.says(conv, fmt.Sprint("m", i))
	}
	bob.gets(fmt.Sprint("m", healAfter-1))
	epoch := alice.epoch(conv)
	var order []string
	alice.setCrash(func(point string) error {
		if point == "submit" {
			order = append(order, fmt.Sprint(alice.slot.Kind, alice.slot.Epoch))
		}
		return nil
	})
	// Both become possible in the same instant.
	alice.mu.Lock()
	clock.turn(time.Minute)
	err := alice.update(func(c *change) error {
		for i := range 3 {
			content := textContent(fmt.Sprint("late", i), clock.Now())
			in, err := alice.queueContent(c, conv, content, mark{})
			if err != nil {
				return err
			}
			if err := c.outcome(in, OutcomeQueued, nil); err != nil {
				return err
			}
		}
		return nil
	})
	alice.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	bob.gets("late0", "late1", "late2")
	clock.turn(time.Minute)
	alice.bell.ring()
	alice.until("heals", func() bool { return alice.epoch(conv) == epoch+1 })
	alice.mu.Lock()
	defer alice.mu.Unlock()
	want := []string{}
	for range 3 {
		want = append(want, fmt.Sprint(intentContent, epoch))
	}
	if want = append(want, fmt.Sprint(slotCommit, epoch)); !slices.Equal(order, want) {
		t.Fatalf("left as %q, want %q", order, want)
	}
}

// A card that is out is asked once, not again and again, and what people write later
// is not held up by the healing that failed.
func TestHealingWithoutCard(t *testing.T) {
	w := newWorld(t)
	clock := &dial{now: time.Now()}
	alice, bob := w.deviceWith("alice", clock.Now).reachable(), w.deviceWith("bob", clock.Now).reachable()
	conv := alice.with(t, bob)
	for i := range healAfter {
		alice.says(conv, fmt.Sprint("m", i))
	}
	alice.until("has a stock", func() bool { alice.mu.Lock(); defer alice.mu.Unlock(); return !alice.filling && alice.slot == nil })
	bob.kill()
	epoch := alice.epoch(conv)
	c := &pulledCard{Signer: alice.key}
	c.out.Store(true)
	alice.mu.Lock()
	alice.cfg.Signer = card{c}
	clear(alice.groups)
	alice.mu.Unlock()
	clock.turn(time.Minute)
	alice.bell.ring()
	alice.until("asks the card", func() bool { return c.failed.Load() > 0 })
	clock.turn(healPause / 2)
	alice.bell.ring()
	alice.until("rests", alice.idle)
	if n := c.failed.Load(); n != 1 {
		t.Errorf("the card was asked %d times", n)
	}
	c.out.Store(false)
	alice.says(conv, "after")
	if got := alice.epoch(conv); got != epoch {
		t.Errorf("epoch %d after %d", got, epoch)
	}
	clock.turn(healPause)
	alice.bell.ring()
	alice.until("heals later", func() bool { return alice.epoch(conv) == epoch+1 })
}

func textContent(text string, at time.Time) *wire.Content {
	return &wire.Content{ID: NewMessageID(), MediaType: wire.MediaText, Time: uint64(at.UnixMilli()), Body: []byte(text)}
}
