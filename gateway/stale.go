// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"time"

	"valise/bulletin"
	"valise/wire"
)

// admitAge refuses content of a rank while the authority's newest word is too old for
// it: who was suspended since is not known here. rank and ranks are those of
// bulletin.Tightening: 0 is without a label, ranks the highest classification.
func admitAge(s *snapshot, rank, ranks int) *refusal {
	if !s.tightening.Refuses(s.age, rank, ranks) {
		return nil
	}
	if s.age == bulletin.Never {
		return &refusal{code: wire.StandingsStale, reason: "no_bulletin"}
	}
	return &refusal{code: wire.StandingsStale, reason: "stale_bulletin"}
}

// up is a clock that nobody sets.
func (g *Gateway) up() time.Duration { return time.Since(g.started) }

// age is how old the newest bulletin is.
func (g *Gateway) age() time.Duration {
	return g.arrival.Load().Age(g.now(), g.up())
}

// A vigil is what the last look at the clocks found.
type vigil struct {
	step int // how many ranks are refused
	wall time.Time
	up   time.Duration
}

// watchAge tells the audit stream of each step that a stale bulletin takes, and of
// clocks that were set, until ctx ends.
func (g *Gateway) watchAge(ctx context.Context) error {
	ticker := time.NewTicker(agePause)
	defer ticker.Stop()
	last := vigil{wall: g.now(), up: g.up()}
	for {
		last = g.lookAtAge(last)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// lookAtAge compares with the last look.
func (g *Gateway) lookAtAge(last vigil) vigil {
	next := vigil{wall: g.now(), up: g.up()}
	if moved := next.wall.Sub(last.wall) - (next.up - last.up); moved.Abs() > clockSlack {
		g.record(eventClock, "", slog.String("by", moved.Round(time.Second).String()))
		g.log.Warn("the clock was set; standings count as old as the older of two clocks says", "by", moved.String())
	}
	ranks := 0
	if state := g.rules.Load(); state != nil && state.Bundle != nil {
		ranks = state.Bundle.Set.Levels()
	}
	arrival := g.arrival.Load()
	age := arrival.Age(next.wall, next.up)
	next.step = g.cfg.Tightening.Step(age, ranks)
	if next.step == last.step {
		return next
	}
	attrs := []slog.Attr{slog.Int("refused", next.step), slog.Int("of", ranks+1)}
	reason := "stale_bulletin"
	if b := arrival.Set().Bulletin(); b != nil {
		attrs = append(attrs, slog.Uint64("bulletin", b.Number), slog.String("age", age.Round(time.Second).String()))
	} else {
		reason = "no_bulletin"
	}
	if next.step < last.step {
		reason = ""
	}
	g.record(eventTightened, reason, attrs...)
	g.log.Warn("what is relayed follows the age of the authority's bulletin", "ranks_refused", next.step, "of", ranks+1, "age", age.String())
	return next
}
