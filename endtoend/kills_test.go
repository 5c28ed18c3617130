// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"valise/internal/stage"
)

// killsOfEach is how often each kind of process is killed.
const killsOfEach = 20

// Gateway, agents, receiving and sending commands are killed with -9 at random
// moments while texts and files go both ways. What a send reported as sent arrives
// exactly once; what a killed one may have sent, once or not at all.
func TestKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	s := seed(t)
	w := newWorld(t, stage.Config{}, "alice", "bob")
	alice, bob := w.people[0], w.people[1]
	w.introduce(alice, bob)

	var killed struct{ gateway, agent, receive, send atomic.Int64 }
	killSend := func(rng *rand.Rand) (time.Duration, bool) {
		return time.Duration(rng.IntN(60)) * time.Millisecond, rng.IntN(3) == 0
	}
	list := []*correspondence{{from: alice, to: bob}, {from: bob, to: alice}}
	for i, c := range list {
		c.rng, c.kill = rand.New(rand.NewPCG(s, uint64(i))), killSend
		c.onKilled = func() { killed.send.Add(1) }
	}
	// moment waits until messages have gone both ways since it was called, and then
	// for some time more: there are always requests in flight.
	moment := func(ctx context.Context, rng *rand.Rand) error {
		before := []int64{list[0].reported.Load(), list[1].reported.Load()}
		err := within(ctx, "messages to flow", func() bool {
			return list[0].reported.Load() > before[0] && list[1].reported.Load() > before[1]
		})
		if err != nil {
			return err
		}
		select {
		case <-time.After(time.Duration(rng.IntN(150)) * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	times := func(stream uint64, n *atomic.Int64, kill func(ctx context.Context, i int) error) func(context.Context) error {
		rng := rand.New(rand.NewPCG(s, stream))
		return func(ctx context.Context) error {
			for i := 0; n.Load() < killsOfEach; i++ {
				if err := moment(ctx, rng); err != nil {
					return err
				}
				if err := kill(ctx, i); err != nil {
					return err
				}
				n.Add(1)
			}
			return nil
		}
	}
	w.correspond(list, func(ctx context.Context) error {
		return together(ctx,
			times(10, &killed.gateway, func(ctx context.Context, _ int) error {
				w.gateway.Process().Kill()
				return w.gateway.Start(ctx)
			}),
			times(11, &killed.agent, func(ctx context.Context, i int) error {
				return w.people[i%2].killAgent(ctx)
			}),
			times(12, &killed.receive, func(_ context.Context, i int) error {
				return w.people[i%2].killReceiver()
			}),
			func(ctx context.Context) error { // until enough sends were killed
				return within(ctx, "sends to be killed", func() bool { return killed.send.Load() >= killsOfEach })
			})
	})
	t.Logf("killed: %d gateways, %d agents, %d receivers, %d senders",
		killed.gateway.Load(), killed.agent.Load(), killed.receive.Load(), killed.send.Load())
}

// introduce lets each read, and has the first write to the second, so that both
// know one conversation.
func (w *world) introduce(first, second *person) {
	w.t.Helper()
	for _, p := range []*person{first, second} {
		if err := p.follow(); err != nil {
			w.t.Fatal(err)
		}
	}
	l := &letter{text: "let us begin", id: fmt.Sprintf("%032x", 1)}
	c := &correspondence{from: first, to: second, rng: rand.New(rand.NewPCG(1, 1)), letters: []*letter{l}}
	if err := c.send(w.ctx, l); err != nil {
		w.t.Fatal(err)
	}
	second.has(l.text)
	w.opening = append(w.opening, c)
}

// killAgent kills the agent and unlocks the one that the next command starts.
func (p *person) killAgent(ctx context.Context) error {
	if !p.KillAgent() {
		return fmt.Errorf("%s had no agent to kill", p.Name)
	}
	return p.unlockAgain(ctx)
}

// killReceiver kills `receive` and starts another one. One that has ended by itself
// has failed: only an interruption ends it.
func (p *person) killReceiver() error {
	p.mu.Lock()
	r := p.receiver
	p.mu.Unlock()
	if !r.Running() {
		return fmt.Errorf("%s's receive --follow has ended by itself", p.Name)
	}
	r.Kill()
	return p.follow()
}
