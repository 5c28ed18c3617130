// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"

	"valise/internal/testenv"
)

// Five hundred devices come, idle, are lost with the gateway, and all come back:
// the small form of the measurement.
func TestAllComeBack(t *testing.T) {
	testenv.SoftHSM(t) // or skip
	out, err := exec.Command(testenv.Build(t, "./bench/connect"), "-devices", "500", "-idle", "1s").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"500 devices connected", "figure connect_left_out 0 devices", "figure connect_idle_connection "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(string(out), " short\n") {
		t.Logf("a figure is short, on a machine that does other things too:\n%s", out)
	}
}
