// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"valise/gateway/mailbox"
	"valise/wire"
)

// What an operator watches is counted.
func TestMetrics(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	registry := prometheus.NewRegistry()
	gw.metrics = newMetrics(registry, gw.Gateway)
	alice, _, ga, _ := pair(t, gw)
	alice.must(alice.sealed(ga, "x"))
	if code := alice.submit(&wire.Send{Group: []byte("none"), Message: []byte("x")}); code != wire.Malformed {
		t.Fatal(code)
	}
	gw.metrics.totals(mailbox.Totals{Devices: 2})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "/" + l.GetValue()
			}
			found[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"valise_gateway_submissions_total/message":                        1,
		"valise_gateway_submissions_total/commit":                         1,
		"valise_gateway_refusals_total/request_refused/malformed_message": 1,
		"valise_gateway_connections":                                      2,
		"valise_gateway_stored/devices":                                   2,
		"valise_gateway_queue":                                            0,
	} {
		if got, ok := found[name]; !ok || got != want {
			t.Errorf("%s = %v, %v; want %v", name, got, ok, want)
		}
	}
}

// One source cannot fill the audit stream; what is left out is counted.
func TestAuditIsBounded(t *testing.T) {
	log := &auditLog{more: make(chan struct{}, 1)}
	a := newAuditor(log.write, slog.New(slog.DiscardHandler))
	const flood = auditBurst + 1000
	for range flood {
		a.event(eventRefusedRequest, "flood")
	}
	written := log.count(eventRefusedRequest, "flood")
	if written < auditBurst || written > auditBurst+100 {
		t.Errorf("%d lines of %d were written", written, flood)
	}
	a.limit.SetBurst(auditBurst + 1)
	a.limit.SetLimit(1e9)
	a.event(eventRefusedRequest, "last")
	line := log.want(t, eventRefusedRequest, "last")
	if line.attrs["left_out"] == "" {
		t.Errorf("the line does not say what was left out: %v", line.attrs)
	}
}
