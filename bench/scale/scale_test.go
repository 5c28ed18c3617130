// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"valise/internal/testenv"
)

// small is a curve that a test has time for.
var small = plan{devices: []int{100, 300}, stored: []int{300, 600}, put: 640, drained: 200, rounds: 1}

// Every store takes the whole curve: what is measured is what is written, fetched and
// drained, or the program ends with an error.
func TestCurve(t *testing.T) {
	for name := range openers {
		t.Run(name, func(t *testing.T) {
			if name != "journal" {
				testenv.Postgres(t) // or skip
			}
			var out bytes.Buffer
			if err := measure(t.Context(), &out, small, name, "/var/tmp"); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"_300_devices_600_stored_cost ", "_300_devices_600_stored_drain_cost ", name + "_cost_growth "} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, &out)
				}
			}
		})
	}
}

// A world whose mail does not come back is not measured.
func TestLostMailIsFound(t *testing.T) {
	s, err := openJournal(t.Context(), t.TempDir()+"/db")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	w := newWorld(s)
	if err := w.grow(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	if err := w.store(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	w.last[0]++ // a message that the store does not have
	if n, err := w.drain(t.Context(), 200); err == nil {
		t.Errorf("%d messages were drained, and nobody missed the one that was lost", n)
	}
}
