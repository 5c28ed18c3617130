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
	nodes      *prometheus.GaugeVec
	stages
}

// stages are how long each stage of a message's way takes. Those of a batch are observed
// once for it, since a batch is what waits and is synced.
type stages struct {
	handshake prometheus.Histogram // from the first datagram or byte to the proven device
	admission prometheus.Histogram // of one message
	queue     prometheus.Histogram // of a batch: its oldest submission, from its arrival to the transaction
	fanout    prometheus.Histogram // of a batch: handing out, reporting, waking
	delivery  prometheus.Histogram // of one delivery: from the submission to the device's stream
}

// fine are buckets from 50 microseconds to 13 seconds.
var fine = prometheus.ExponentialBuckets(0.00005, 2, 19)

// ages are buckets for what may have waited in a mailbox: from half a millisecond to a month.
var ages = append(prometheus.ExponentialBuckets(0.0005, 2, 16), 60, 600, 3600, 6*3600, 86400, 7*86400, 30*86400)

func newStages() stages {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "valise_gateway_" + name, Help: help, Buckets: buckets})
	}
	return stages{
		handshake: histogram("handshake_seconds", "Time from a connection's first packet to its proven device, a person's PIN included.", fine),
		admission: histogram("admission_seconds", "Time that the decision about one message took.", prometheus.ExponentialBuckets(0.000001, 2, 16)),
		queue:     histogram("queue_seconds", "Time that the oldest submission of a batch had waited when its transaction began.", fine),
		fanout:    histogram("fanout_seconds", "Time to hand out, report and wake after one transaction.", fine),
		delivery:  histogram("delivery_age_seconds", "Age of a message when it went into the stream of a device.", ages),
	}
}

func (s *stages) all() []prometheus.Collector {
	return []prometheus.Collector{s.handshake, s.admission, s.queue, s.fanout, s.delivery}
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
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "valise_gateway_nodes", Help: "Gateways of this database, by whether they are at work; none where it has one only. Counted twice a minute.",
		}, []string{"state"}),
		stages: newStages(),
	}
	m.contents = m.messages.WithLabelValues(kindMessage)
	m.begin()
	if r == nil {
		return m
	}
	r.MustRegister(m.messages, m.deliveries, m.expired, m.refusals, m.batches, m.syncs, m.stored, m.files, m.alarms, m.nodes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "valise_gateway_handshakes_open", Help: "Handshakes that are not complete at this moment.",
		}, func() float64 { return float64(g.door.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "valise_gateway_deaf", Help: "1 while the news of other gateways on the same database are not heard.",
		}, func() float64 {
			if node, ok := g.cfg.Store.(mailbox.Node); ok && node.Deaf() != nil {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "valise_gateway_connections", Help: "Connections at this moment; handshakes that are not complete are none.",
		}, func() float64 { return float64(g.open.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "valise_gateway_queue", Help: "Submissions that wait for the store.",
		}, func() float64 { return float64(g.box.Depth()) }))
	r.MustRegister(m.stages.all()...)
	return m
}

// begin makes the series that alerts and dashboards ask for, before anything happened: one
// that appears with its first event has no increase.
func (m *metrics) begin() {
	for _, kind := range []string{"key_packages", "group", "commit"} {
		m.messages.WithLabelValues(kind)
	}
	for _, way := range []string{"received", "sent", "fetched", "expired", "abandoned"} {
		m.files.WithLabelValues(way)
	}
	m.refusals.WithLabelValues(eventRefusedRequest, "unavailable")
	m.totals(mailbox.Totals{})
	m.gateways(nil)
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

func (m *metrics) batch(b mailbox.Observed) {
	m.batches.Observe(float64(b.Submissions))
	m.syncs.Observe(b.Commit.Seconds())
	m.queue.Observe(max(0, b.Waited.Seconds()))
	m.fanout.Observe(b.Told.Seconds())
}

// delivered observes how old deliveries were when they left.
func (m *metrics) delivered(entries []mailbox.Entry, now time.Time) {
	m.deliveries.Add(float64(len(entries)))
	at := now.UnixMilli()
	for i := range entries {
		if entries[i].Kind == mailbox.Content {
			m.delivery.Observe(float64(max(0, at-entries[i].Time)) / 1000)
		}
	}
}

// gateways counts those on the same database.
func (m *metrics) gateways(all []mailbox.NodeSign) {
	alive := 0
	for _, n := range all {
		if n.Alive {
			alive++
		}
	}
	m.nodes.WithLabelValues("alive").Set(float64(alive))
	m.nodes.WithLabelValues("gone").Set(float64(len(all) - alive))
}

func (m *metrics) totals(t mailbox.Totals) {
	for kind, n := range map[string]int64{
		"devices": t.Devices, "groups": t.Groups, "messages": t.Messages,
		"undelivered": t.Pointers, "key_packages": t.KeyPackages, "files": t.Blobs,
	} {
		m.stored.WithLabelValues(kind).Set(float64(n))
	}
}
