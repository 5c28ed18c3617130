// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"valise/enroll/acme"
	"valise/internal/store/authority"
)

// metrics are what /metrics says about enrollment, besides valise_health.
type metrics struct {
	issued  *prometheus.CounterVec
	refused *prometheus.CounterVec
	orders  *prometheus.Desc
	retries *prometheus.Desc
	store   *authority.Store
	stages  *prometheus.HistogramVec // appraisal
	tx      *prometheus.HistogramVec
}

func newMetrics(store *authority.Store) *metrics {
	m := &metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_enroll_issued_total", Help: "Certificates issued since the start, by kind.",
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_enroll_refused_total", Help: "Requests refused since the start, by reason code.",
		}, []string{"reason"}),
		orders:  prometheus.NewDesc("valise_enroll_orders", "Orders in the database, by status.", []string{"status"}, nil),
		retries: prometheus.NewDesc("valise_enroll_store_retries_total", "Transactions run once more since the start, because they were in each other's way.", nil, nil),
		store:   store,
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "valise_enroll_appraisal_seconds", Help: "Time that the appraisal of one device's evidence took, by whether it was accepted.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14),
		}, []string{"verdict"}),
		tx: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "valise_enroll_store_seconds", Help: "Time that one transaction of the database took, waiting and retries included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
		}, []string{"kind"}),
	}
	m.issued.WithLabelValues("device") // so that their first has an increase
	m.refused.WithLabelValues(string(acme.MalformedRequest))
	for _, verdict := range []string{"accepted", "refused"} {
		m.stages.WithLabelValues(verdict)
	}
	writes, reads := m.tx.WithLabelValues("write"), m.tx.WithLabelValues("read")
	store.Observe(func(write bool, took time.Duration) {
		if write {
			writes.Observe(took.Seconds())
			return
		}
		reads.Observe(took.Seconds())
	})
	return m
}

// appraised counts one appraisal.
func (m *metrics) appraised(took time.Duration, passed bool) {
	verdict := "refused"
	if passed {
		verdict = "accepted"
	}
	m.stages.WithLabelValues(verdict).Observe(took.Seconds())
}

// follow shows what gateways are told.
func (m *metrics) follow(r prometheus.Registerer, state func() (number uint64, at time.Time, gateways int)) {
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "valise_enroll_" + name, Help: help}, value))
	}
	gauge("bulletin_number", "Number of the newest bulletin; 0: there is none.", func() float64 { n, _, _ := state(); return float64(n) })
	gauge("bulletin_age_seconds", "Age of the newest bulletin; 0: there is none.", func() float64 {
		if _, at, _ := state(); !at.IsZero() {
			return time.Since(at).Seconds()
		}
		return 0
	})
	gauge("gateways", "Gateways that follow the record at this moment.", func() float64 { _, _, n := state(); return float64(n) })
}

func (m *metrics) issue(kind string)    { m.issued.WithLabelValues(kind).Inc() }
func (m *metrics) refuse(reason string) { m.refused.WithLabelValues(reason).Inc() }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	m.issued.Describe(out)
	m.refused.Describe(out)
	m.stages.Describe(out)
	m.tx.Describe(out)
	out <- m.orders
	out <- m.retries
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.issued.Collect(out)
	m.refused.Collect(out)
	m.stages.Collect(out)
	m.tx.Collect(out)
	out <- prometheus.MustNewConstMetric(m.retries, prometheus.CounterValue, float64(m.store.Retries()))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var counts map[string]int64
	err := m.store.View(ctx, func(tx *authority.Tx) (err error) {
		counts, err = tx.CountOrders()
		return err
	})
	if err != nil {
		return // valise_health{check="store"} tells
	}
	for _, status := range []string{authority.Pending, authority.Ready, authority.Processing, authority.Valid, authority.Invalid} {
		out <- prometheus.MustNewConstMetric(m.orders, prometheus.GaugeValue, float64(counts[status]), status)
	}
}
