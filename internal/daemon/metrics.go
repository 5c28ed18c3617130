// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/x509"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Watch registers what both daemons show about what they stand on.
type Watch struct {
	Metrics prometheus.Registerer
	signs   *prometheus.HistogramVec
	failed  *prometheus.CounterVec
}

// NewWatch registers the metrics of keys in hardware.
func NewWatch(r prometheus.Registerer) *Watch {
	w := &Watch{
		Metrics: r,
		signs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "valise_hsm_sign_seconds", Help: "Time that one signature of the HSM took, by the use of the key.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 2, 16),
		}, []string{"key"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_hsm_errors_total", Help: "Signatures that the HSM did not make, by the use of the key.",
		}, []string{"key"}),
	}
	r.MustRegister(w.signs, w.failed)
	return w
}

// Signs returns what is to be told of each signature with a key.
func (w *Watch) Signs(use string) func(took time.Duration, err error) {
	took, failed := w.signs.WithLabelValues(use), w.failed.WithLabelValues(use)
	return func(d time.Duration, err error) {
		if err != nil {
			failed.Inc()
			return
		}
		took.Observe(d.Seconds())
	}
}

// Certificate shows when a certificate expires, in seconds since 1970; 0 while there is
// none.
func (w *Watch) Certificate(name string, now func() *x509.Certificate) {
	w.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "valise_certificate_expires_seconds", Help: "When a certificate of this daemon expires, in seconds since 1970.",
		ConstLabels: prometheus.Labels{"certificate": name},
	}, func() float64 {
		if c := now(); c != nil {
			return float64(c.NotAfter.Unix())
		}
		return 0
	}))
}

// Disk shows the room that is left for a directory.
func (w *Watch) Disk(name, dir string) {
	gauge := func(metric, help string, pick func(free, whole uint64) uint64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metric, Help: help, ConstLabels: prometheus.Labels{"directory": name}}, func() float64 {
			free, whole, err := room(dir)
			if err != nil {
				return 0 // which is what an alert is for
			}
			return float64(pick(free, whole))
		})
	}
	w.Metrics.MustRegister(
		gauge("valise_disk_free_bytes", "Bytes that are free on the disk of a directory; 0 if it cannot be asked.", func(free, _ uint64) uint64 { return free }),
		gauge("valise_disk_size_bytes", "Size of the disk of a directory.", func(_, whole uint64) uint64 { return whole }),
	)
}
