// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// register shows how the authority is followed.
func (f *Feed) register() {
	if f.cfg.Metrics == nil {
		return
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "valise_gateway_" + name, Help: help}, value)
	}
	f.cfg.Metrics.MustRegister(
		gauge("bulletin_number", "Number of the highest bulletin seen; 0: none.", func() float64 { return float64(f.Set().Number()) }),
		gauge("bulletin_age_seconds", "Age of the highest bulletin seen.", func() float64 {
			b := f.Set().Bulletin()
			if b == nil {
				return 0
			}
			return f.cfg.Now().Sub(b.Time).Seconds()
		}),
		gauge("bulletin_staleness", "0: fresh, 1: late, 2: stale, 3: there was none.", func() float64 { return float64(f.Stale()) }),
		gauge("statements_pending", "Statements obeyed that no bulletin knows yet.", func() float64 { return float64(f.Set().Pending()) }),
		gauge("authority_connected", "1 while the authority's feed is open.", func() float64 {
			if f.connected.Load() {
				return 1
			}
			return 0
		}),
		gauge("record_leaves", "Leaves of the authority's record that are held.", func() float64 {
			size, _, err := f.copy.sizes(context.Background())
			if err != nil {
				return -1
			}
			return float64(size)
		}),
	)
}
