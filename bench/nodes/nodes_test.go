// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"valise/internal/testenv"
)

// One gateway and two on one database, measured briefly: messages are counted once each and in
// their order, or the program ends with an error.
func TestQuick(t *testing.T) {
	testenv.SoftHSM(t)  // or skip
	testenv.Postgres(t) // or skip
	out, err := exec.Command(testenv.Build(t, "./bench/nodes"), "-quick").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"figure nodes_1_rate ", "figure nodes_2_rate ", "figure nodes_2_wake_other_p99 ", "figure nodes_2_wake_later_p99 ", "2 nodes: ", "end the growth"} {
		if !strings.Contains(string(out), want) && !strings.Contains(string(out), strings.Replace(want, "end the", "ends the", 1)) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// What ends the growth is said by what was seen.
func TestEnd(t *testing.T) {
	for want, r := range map[string]*result{
		"the processors": {busy: 0.97, waits: waits{disk: 0.6, locks: 0.3}},
		"the disk":       {busy: 0.5, waits: waits{disk: 0.6, locks: 0.3}},
		"locks":          {busy: 0.5, waits: waits{disk: 0.2, locks: 0.5}},
		"the gateways'":  {busy: 0.5, waits: waits{disk: 0.2, locks: 0.1, gateway: 0.4}},
	} {
		if got := end([]*result{r}); !strings.HasPrefix(got, want) {
			t.Errorf("want %s: %s", want, got)
		}
	}
}

func TestUsage(t *testing.T) {
	u, err := parseUsage("cpu  100 1 20 300 4 5 6 7 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if err != nil || u.busy != 1390*time.Millisecond || u.idle != 3040*time.Millisecond {
		t.Errorf("%+v, %v", u, err)
	}
	for _, text := range []string{"", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8 9", "cpu 1 2 3 x 5 6 7 8 9"} {
		if u, err := parseUsage(text); err == nil {
			t.Errorf("%q: %+v", text, u)
		}
	}
}

func TestQuantile(t *testing.T) {
	list := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 100}
	if p50, p99 := quantile(list, 0.5), quantile(list, 0.99); p50 != 6 || p99 != 100 {
		t.Error(p50, p99)
	}
}
