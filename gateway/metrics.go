// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"valise/gateway/mailbox"
)

// metrics are counted whether or not somebody collects them. No label names a
// person or a device.
type metrics struct {
	messages   *prometheus.CounterVec
	contents   prometheus.Counter // of messages, kind message
	deliveries prometheus.Counter
	expired    prometheus.Counter
	refusals   *prometheus.CounterVec
	batches    prometheus.Histogram
	syncs      prometheus.Histogram
	stored     *prometheus.GaugeVec
	files      *prometheus.CounterVec
	alarms     prometheus.Counter
}

func newMetrics(r prometheus.Registerer, g *Gateway) *metrics {
	m := &metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_gateway_submissions_total", Help: "Submissions done and synced, by kind of request.",
		}, []string{"kind"}),
		deliveries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "valise_gateway_deliveries_total", Help: "Deliveries sent to devices, repeated ones included.",
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "valise_gateway_expired_total", Help: "Messages that a device did not fetch in time, counted for each device.",
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_gateway_refusals_total", Help: "Refusals, by event and reason.",
		}, []string{"event", "reason"}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "valise_gateway_batch_submissions", Help: "Submissions in one synced transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "valise_gateway_batch_seconds", Help: "Time that one transaction took, sync included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		stored: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "valise_gateway_stored", Help: "What the store holds, by kind; counted twice a minute.",
		}, []string{"kind"}),
		files: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_gateway_files_total", Help: "Files received and sent completely, those that ended as all recipients have them, that expired, and whose upload was abandoned.",
		}, []string{"direction"}),
		alarms: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "valise_gateway_alarms_total", Help: "Devices that were refused too often for an honest one, counted for each alarm.",
		}),
	}
	m.contents = m.messages.WithLabelValues(kindMessage)
	if r == nil {
		return m
	}
	r.MustRegister(m.messages, m.deliveries, m.expired, m.refusals, m.batches, m.syncs, m.stored, m.files, m.alarms,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "valise_gateway_connections", Help: "Connections at this moment; handshakes that are not complete are none.",
		}, func() float64 { return float64(g.open.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "valise_gateway_queue", Help: "Submissions that wait for the store.",
		}, func() float64 { return float64(g.box.Depth()) }))
	return m
}

func (m *metrics) refused(event, reason string) { m.refusals.WithLabelValues(event, reason).Inc() }

// submitted counts a submission that is on disk. Messages have no label to be found.
func (m *metrics) submitted(kind string) {
	if kind == kindMessage {
		m.contents.Inc()
		return
	}
	m.messages.WithLabelValues(kind).Inc()
}

func (m *metrics) batch(n int, took time.Duration) {
	m.batches.Observe(float64(n))
	m.syncs.Observe(took.Seconds())
}

func (m *metrics) totals(t mailbox.Totals) {
	for kind, n := range map[string]int64{
		"devices": t.Devices, "groups": t.Groups, "messages": t.Messages,
		"undelivered": t.Pointers, "key_packages": t.KeyPackages, "files": t.Blobs,
	} {
		m.stored.WithLabelValues(kind).Set(float64(n))
	}
}
