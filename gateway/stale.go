// SPDX-License-Identifier: Apache-2.0

package gateway

import (
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
