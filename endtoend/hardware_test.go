// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"valise/internal/stage"
)

// Cards are pulled and put back, pcscd and both tokens are restarted, while texts and
// files go both ways and somebody enrolls: nothing is lost, and no daemon has to be
// restarted.
func TestHardwareComesAndGoes(t *testing.T) {
	t.Parallel()
	s := seed(t)
	w := newWorldWith(t, stage.Config{TokenServers: true}, []string{"alice", "bob"}, "carol", "dan")
	alice, bob := w.people[0], w.people[1]
	w.introduce(alice, bob)
	list := []*correspondence{{from: alice, to: bob}, {from: bob, to: alice}}
	for i, c := range list {
		c.rng = rand.New(rand.NewPCG(s, uint64(i)))
	}
	gateway, authority := w.gateway.Process().Pid(), w.authority.Process().Pid()

	w.correspond(list, func(ctx context.Context) error {
		cards := func(p *person) func(context.Context) error {
			rng := rand.New(rand.NewPCG(s, uint64(p.Card.Serial)))
			return func(ctx context.Context) error {
				for range 10 {
					if err := p.pullAndInsert(ctx, rng); err != nil {
						return err
					}
				}
				for range 3 {
					if err := p.Card.Reader.RestartPCSCD(ctx); err != nil {
						return err
					}
					if err := errors.Join(p.locksItself(ctx), p.unlockAgain(ctx)); err != nil {
						return err
					}
				}
				return nil
			}
		}
		if err := together(ctx, cards(alice), cards(bob)); err != nil {
			return err
		}
		return w.restartTokens(ctx, list)
	})
	if pid := w.gateway.Process().Pid(); pid != gateway || !w.gateway.Process().Running() {
		t.Error("the gateway has not lived through it")
	}
	if pid := w.authority.Process().Pid(); pid != authority || !w.authority.Process().Running() {
		t.Error("the authority has not lived through it")
	}
}

// pullAndInsert pulls a card out, waits until the device has noticed, and goes on with
// the card back in. Somebody else's commands find the device locked meanwhile.
func (p *person) pullAndInsert(ctx context.Context, rng *rand.Rand) error {
	select {
	case <-time.After(time.Duration(rng.IntN(200)) * time.Millisecond):
	case <-ctx.Done():
	}
	if err := p.Card.Eject(ctx); err != nil {
		return err
	}
	if err := p.locksItself(ctx); err != nil {
		return err
	}
	if err := p.Unlock(ctx); err == nil {
		return fmt.Errorf("%s unlocked without a card", p.Name)
	}
	if err := p.Card.Insert(ctx); err != nil {
		return err
	}
	return p.unlockAgain(ctx)
}

// locksItself waits until the device has noticed that its card is out of reach.
func (p *person) locksItself(ctx context.Context) error {
	return within(ctx, p.Name+"'s device to lock itself", func() bool {
		st, err := p.status(ctx)
		return err == nil && !st.Unlocked
	})
}

// unlockAgain types the PIN until the device takes it.
func (p *person) unlockAgain(ctx context.Context) error {
	var last error
	err := within(ctx, p.Name+" to unlock", func() bool {
		last = p.Unlock(ctx)
		return last == nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return nil
}

// restartTokens kills the gateway's and the authority's token and starts them again,
// several times: a device that connects afterwards is served, and one that enrolls is
// certified, by daemons that were never restarted.
func (w *world) restartTokens(ctx context.Context, list []*correspondence) error {
	for i, name := range []string{"carol", "dan"} {
		for _, token := range []*stage.Token{w.gateway.Token, w.authority.Token} {
			token.Kill()
		}
		before := list[0].reported.Load()
		err := within(ctx, "messages to flow without the gateway's token", func() bool { return list[0].reported.Load() > before })
		if err != nil {
			return err
		}
		// A device that comes while the token is away waits for it.
		if _, err := w.people[i].Run(ctx, "lock"); err != nil {
			return err
		}
		waiting := make(chan error, 1)
		go func() { waiting <- w.people[i].unlockAgain(ctx) }()
		for _, token := range []*stage.Token{w.gateway.Token, w.authority.Token} {
			if err := token.Start(ctx); err != nil {
				return err
			}
		}
		if err := <-waiting; err != nil {
			return err
		}
		if err := w.online(ctx, w.people[i]); err != nil {
			return err
		}
		if err := w.enrollLater(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// online waits until a device is connected.
func (w *world) online(ctx context.Context, p *person) error {
	return within(ctx, p.Name+" to be online", func() bool {
		st, err := p.status(ctx)
		return err == nil && st.Unlocked && st.Engine.Connection.Name == "online"
	})
}

// enrollLater enrolls one more person. Enrolling can be repeated with the same
// invitation until the authority's token is back.
func (w *world) enrollLater(ctx context.Context, name string) error {
	p := &person{Official: w.NewOfficial(name, name+"@"+domain, w.newReader(name, 1)[0]), w: w}
	var code string
	var last error
	err := within(ctx, name+" to enroll", func() bool {
		if code == "" {
			if code, last = w.authority.Invite(ctx, p.Address); last != nil {
				return false
			}
		}
		_, last = p.EnrollWith(ctx, code, w.gateway)
		return last == nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return p.unlockAgain(ctx)
}
