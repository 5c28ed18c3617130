// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"valise/internal/syslog"
	"valise/internal/testenv"
)

// families are the metrics of a page with their help texts.
func families(page string) map[string]string {
	all := make(map[string]string)
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(strings.TrimSpace(rest), " ")
			all[name] = help
		}
	}
	return all
}

// pages are what both daemons publish, and what they publish besides with a collector.
func pages(t *testing.T, w *world) []string {
	t.Helper()
	gateway, err := w.gateway.Metrics(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := w.authority.Metrics(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := syslog.Open(syslog.Config{Server: "unix:///nonexistent", Program: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close(w.ctx)
	registry := prometheus.NewRegistry()
	sender.Metrics(registry)
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	return []string{gateway, authority, answer.Body.String()}
}

// promtool runs Prometheus's own checker, which must have nothing to say.
func promtool(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "promtool", "prometheus"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return err.Error() + ": " + string(out)
	}
	return ""
}

// metricName finds names in a query; functions and labels are told by what follows.
var metricName = regexp.MustCompile(`\b(valise_[a-z0-9_]+|process_[a-z0-9_]+|go_[a-z0-9_]+)\b`)

// unknownNames are the metrics of a query that no daemon publishes.
func unknownNames(query string, known map[string]string) (unknown []string) {
	for _, name := range metricName.FindAllString(query, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if known[name] == "" && known[base] == "" {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// queries are all that a dashboard asks.
func queries(t *testing.T, dashboard []byte) (all []string) {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Type, Query string }
		}
	}
	if err := json.Unmarshal(dashboard, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			all = append(all, v.Query)
		}
	}
	return all
}

// What operators watch by holds: the metrics of running daemons pass Prometheus's
// linter, alert rules and dashboard ask for metrics that exist, and the documents name
// every one.
func checkMetrics(t *testing.T, w *world) {
	dir := filepath.Join(testenv.Root(t), "packaging", "monitoring")
	published := make(map[string]string)
	for _, page := range pages(t, w) {
		if complaint := promtool(t, page, "check", "metrics"); complaint != "" {
			t.Errorf("promtool check metrics: %s", complaint)
		}
		maps.Copy(published, families(page))
	}
	if promtool(t, "# TYPE a counter\na 1\n", "check", "metrics") == "" {
		t.Error("promtool does not complain of a counter without a help text")
	}
	rules := filepath.Join(dir, "valise-rules.yml")
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", filepath.Join(dir, "valise-rules-test.yml")}} {
		if complaint := promtool(t, "", args...); complaint != "" {
			t.Errorf("promtool %s: %s", args[0], complaint)
		}
	}
	ruleText, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(filepath.Join(dir, "valise-rules-test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^      - alert: (\w+)\n        expr: (.*)$`).FindAllSubmatch(ruleText, -1) {
		if n := bytes.Count(tests, []byte(`alertname="`+string(m[1])+`"`)); n != 2 {
			t.Errorf("%s has %d tests, want that it fires and a control", m[1], n)
		}
		if unknown := unknownNames(string(m[2]), published); unknown != nil {
			t.Errorf("alert %s asks for what nobody publishes: %v", m[1], unknown)
		}
	}
	dashboard, err := os.ReadFile(filepath.Join(dir, "valise-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	asked := queries(t, dashboard)
	for _, query := range asked {
		if unknown := unknownNames(query, published); unknown != nil {
			t.Errorf("the dashboard asks for what nobody publishes: %v in %s", unknown, query)
		}
	}
	if len(asked) < 40 || unknownNames("rate(valise_gateway_nothing_total[5m])", published) == nil {
		t.Errorf("%d queries", len(asked))
	}
	documented(t, published)
}

// documented compares the table of docs/metrics.md with what is published.
func documented(t *testing.T, published map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	written := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `(valise_[a-z0-9_]+)`").FindAllSubmatch(text, -1) {
		written[string(m[1])] = true
	}
	for _, name := range slices.Sorted(maps.Keys(published)) {
		if strings.HasPrefix(name, "valise_") && !written[name] {
			t.Errorf("docs/metrics.md lacks: | `%s` | %s |", name, published[name])
		}
		delete(written, name)
	}
	for name := range written {
		t.Errorf("docs/metrics.md has %s, which nobody publishes", name)
	}
}
