// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"valise/internal/store/authority"
)

// metrics are what /metrics says about enrollment, besides valise_health.
type metrics struct {
	issued  *prometheus.CounterVec
	refused *prometheus.CounterVec
	orders  *prometheus.Desc
	retries *prometheus.Desc
	store   *authority.Store
}

func newMetrics(store *authority.Store) *metrics {
	return &metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_enroll_issued_total", Help: "Certificates issued since the start, by kind.",
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "valise_enroll_refused_total", Help: "Requests refused since the start, by reason code.",
		}, []string{"reason"}),
		orders:  prometheus.NewDesc("valise_enroll_orders", "Orders in the database, by status.", []string{"status"}, nil),
		retries: prometheus.NewDesc("valise_enroll_store_retries_total", "Transactions run once more since the start, because they were in each other's way.", nil, nil),
		store:   store,
	}
}

func (m *metrics) issue(kind string)    { m.issued.WithLabelValues(kind).Inc() }
func (m *metrics) refuse(reason string) { m.refused.WithLabelValues(reason).Inc() }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	m.issued.Describe(out)
	m.refused.Describe(out)
	out <- m.orders
	out <- m.retries
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.issued.Collect(out)
	m.refused.Collect(out)
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
