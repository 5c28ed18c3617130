// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// checkLimit is how long one health check may take before it counts as failed: a
// hung HSM must turn the page red, not hang it.
const checkLimit = 2 * time.Second

// Health is a set of named checks. Its zero value is healthy.
type Health struct {
	mu       sync.Mutex
	checks   map[string]func(context.Context) error // guarded by mu
	draining bool                                   // guarded by mu
}

var errDraining = errors.New("draining")

// Add names a check, which is called at every look at /healthz and /metrics and must
// therefore be cheap. Expensive checks run in a part of their own and report here.
func (h *Health) Add(name string, check func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checks == nil {
		h.checks = make(map[string]func(context.Context) error)
	}
	h.checks[name] = check
}

// Drain turns the page red because the daemon is about to end.
func (h *Health) Drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
}

// Check runs all checks side by side and returns the error, or nil, of each.
func (h *Health) Check(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	type result struct {
		name string
		err  error
	}
	h.mu.Lock()
	draining := h.draining
	names := make([]string, 0, len(h.checks))
	results := make(chan result, len(h.checks))
	for name, check := range h.checks {
		names = append(names, name)
		go func() { results <- result{name, check(ctx)} }()
	}
	h.mu.Unlock()

	all := make(map[string]error, len(names)+1)
	for _, name := range names {
		all[name] = context.DeadlineExceeded
	}
	for range names {
		select {
		case r := <-results:
			all[r.name] = r.err
		case <-ctx.Done():
		}
	}
	if draining {
		all["life"] = errDraining
	}
	return all
}

// ServeHTTP answers 200 when every check passes and 503 otherwise, with a JSON
// object that names each check and says "ok" or the error.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body := http.StatusOK, map[string]string{}
	for name, err := range h.Check(r.Context()) {
		body[name] = "ok"
		if err != nil {
			body[name], status = err.Error(), http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

var healthDesc = prometheus.NewDesc("valise_health", "1 when the named check passes, else 0.", []string{"check"}, nil)

// Describe implements prometheus.Collector.
func (h *Health) Describe(out chan<- *prometheus.Desc) { out <- healthDesc }

// Collect implements prometheus.Collector.
func (h *Health) Collect(out chan<- prometheus.Metric) {
	for name, err := range h.Check(context.Background()) {
		value := 1.0
		if err != nil {
			value = 0
		}
		out <- prometheus.MustNewConstMetric(healthDesc, prometheus.GaugeValue, value, name)
	}
}

func (d *Daemon) adminServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", d.Health)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.Metrics, promhttp.HandlerOpts{}))
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
}
