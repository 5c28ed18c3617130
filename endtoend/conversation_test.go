// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"valise/internal/stage"
)

// Ten devices on ten cards, two in a reader, hold a conversation: nine people, one of
// whom has two devices. A member adds somebody's new device later, and everybody is
// shown it; one is removed. Every text reaches every member, and all see texts and
// changes in one order.
func TestConversationOfTenDevices(t *testing.T) {
	t.Parallel()
	names := []string{"alice", "bob", "carol", "dan", "erin", "frank", "grace", "heidi", "ivan"}
	w := emptyWorld(t, stage.Config{}, names...)
	homes := append(slices.Clone(names), "alice2", "bob2") // bob's second comes later
	var cards []*stage.Card
	for len(cards) < len(homes) {
		cards = append(cards, w.newReader(fmt.Sprint(len(cards)), 2)...)
	}
	device := map[string]*person{}
	for i, home := range homes {
		device[home] = w.newPerson(home, strings.TrimSuffix(home, "2"), cards[i])
	}
	first := w.people[:len(homes)-1]
	if err := w.each(first, func(ctx context.Context, p *person) error { return w.join(ctx, p) }); err != nil {
		t.Fatal(err)
	}
	later := device["bob2"]
	w.people = first
	w.acquainted()

	const name = "Crisis room"
	alice := device["alice"]
	others := make([]string, 0, len(names))
	for _, n := range names[1:] {
		others = append(others, n+"@"+domain)
	}
	alice.must(append(append([]string{"send", "--name", name}, others...), "alice opens the room")...)
	for _, p := range first {
		if p != alice {
			p.has("alice opens the room")
		}
	}
	w.members(alice, name, 10)

	var said []string
	say := func(p *person, text string) {
		t.Helper()
		said = append(said, text)
		p.must("send", "-c", name, text)
	}
	// Several at once, so that messages cross.
	err := w.each(first, func(ctx context.Context, p *person) error {
		_, err := p.Run(ctx, "send", "-c", name, p.Name+" is here")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range first {
		said = append(said, p.Name+" is here")
	}

	// A new device: until a member adds it, it reads nothing.
	if err := w.join(w.ctx, later); err != nil {
		t.Fatal(err)
	}
	w.people = append(first, later)
	device["carol"].must("add", name, "bob@"+domain)
	w.members(alice, name, 11)
	for _, p := range first {
		if p != device["carol"] {
			w.shown(p, "added", later)
		}
	}
	say(device["bob"], "bob: that is my new device")
	say(later, "bob2: so it is")

	// One goes.
	gone := device["ivan"]
	device["dan"].must("remove", name, "ivan@"+domain)
	w.members(alice, name, 10)
	for _, p := range w.people {
		if p != device["dan"] && p != gone {
			w.shown(p, "removed", gone)
		}
	}
	say(alice, "alice: ivan has left")
	say(device["alice2"], "alice2: good")
	if _, err := gone.Run(w.ctx, "send", "-c", name, "ivan: am I still there?"); err == nil {
		t.Error("somebody who was removed could write")
	}
	w.oneOrder(first, gone, said)

	after := said[slices.Index(said, "bob: that is my new device"):]
	for _, text := range after {
		if text != "bob2: so it is" {
			later.has(text)
		}
	}
	for _, p := range []*person{later, gone} {
		list, err := p.events()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if p == later && strings.HasSuffix(e.Text, "is here") || p == gone && strings.HasPrefix(e.Text, "alice: ivan") {
				t.Errorf("%s could read %q", p.Name, e.Text)
			}
		}
	}
	w.noRefusals()
}

// each runs a job for people, two at a time.
func (w *world) each(people []*person, job func(context.Context, *person) error) error {
	slots := make(chan struct{}, 2)
	var jobs []func(context.Context) error
	for _, p := range people {
		jobs = append(jobs, func(ctx context.Context) error {
			slots <- struct{}{}
			defer func() { <-slots }()
			return job(ctx, p)
		})
	}
	return together(w.ctx, jobs...)
}

// join enrolls a device, unlocks it and reads along.
func (w *world) join(ctx context.Context, p *person) error {
	if _, err := p.Enroll(ctx, w.authority, w.gateway); err != nil {
		return err
	}
	if err := p.unlockAgain(ctx); err != nil {
		return err
	}
	return p.follow()
}

// members waits until a conversation has so many devices.
func (w *world) members(p *person, name string, n int) {
	w.t.Helper()
	w.until(fmt.Sprintf("%d devices in %s", n, name), func() (bool, error) {
		for line := range strings.Lines(p.must("conversations", "--json")) {
			var c struct {
				Name, Suite string
				Members     []struct{ Address, Device string }
			}
			if err := json.Unmarshal([]byte(line), &c); err != nil {
				return false, err
			}
			if c.Name == name {
				return len(c.Members) == n, nil
			}
		}
		return false, nil
	})
}

// shown waits until a device has been shown that another one came in or went out.
func (w *world) shown(p *person, kind string, other *person) {
	w.t.Helper()
	st, err := other.status(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.until(fmt.Sprintf("%s to be shown that %s was %s", p.Name, other.Name, kind), func() (bool, error) {
		list, err := p.events()
		for _, e := range list {
			for _, m := range e.Members {
				if e.Kind == kind && m.Device == st.Device && m.Address == other.Address {
					return true, nil
				}
			}
		}
		return false, err
	})
}

// oneOrder fails unless each device has every text but its own once, and all have
// texts and changes of members in one order.
func (w *world) oneOrder(people []*person, gone *person, said []string) {
	w.t.Helper()
	own := func(p *person, text string) bool {
		return strings.HasPrefix(text, p.Name+" ") || strings.HasPrefix(text, p.Name+":")
	}
	seen := map[string][]string{}
	for _, p := range people {
		if p == gone {
			continue
		}
		for _, text := range said {
			if !own(p, text) {
				p.has(text)
			}
		}
		list, err := p.events()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range list {
			switch e.Kind {
			case "message":
				seen[p.Name] = append(seen[p.Name], e.Text)
			case "added", "removed":
				for _, m := range e.Members {
					seen[p.Name] = append(seen[p.Name], e.Kind+" "+m.Device)
				}
			}
		}
	}
	for _, p := range people {
		for _, q := range people {
			if p == gone || q == gone {
				continue
			}
			a, b := common(seen[p.Name], seen[q.Name]), common(seen[q.Name], seen[p.Name])
			if !slices.Equal(a, b) {
				w.t.Fatalf("%s and %s see another order:\n%q\n%q", p.Name, q.Name, a, b)
			}
		}
		if texts := seen[p.Name]; len(slices.Compact(slices.Sorted(slices.Values(texts)))) != len(texts) {
			w.t.Errorf("%s has something twice: %q", p.Name, texts)
		}
	}
}

// common lists what is in both, in the order of the first.
func common(a, b []string) (out []string) {
	for _, s := range a {
		if slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}
