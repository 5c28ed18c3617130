// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"strings"
	"testing"

	"valise/internal/testenv"
)

// Payloads lie in the memory that the caller lends while they fit, one behind the other,
// and elsewhere when they do not; bounds hold.
func TestReadIntoOnPostgreSQL(t *testing.T) {
	s := openAlone(t, testenv.Postgres(t).DSN)
	populate(t, s, 3)
	texts := []string{strings.Repeat("a", 100), "", strings.Repeat("b", 50), strings.Repeat("c", 100), strings.Repeat("d", 20)}
	for i, text := range texts {
		to := []int{1}
		if i%2 == 0 {
			to = append(to, 2)
		}
		apply(t, s, content(0, uint64(i)+2, text, to...))
	}
	into := make([]byte, 7, 207)
	entries, err := s.ReadInto(t.Context(), device(1), 0, 10, 1000, into)
	if err != nil || len(entries) != len(texts) {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, e := range entries {
		if string(e.Payload) != texts[i] || e.Payload == nil || string(e.Group) != "g" || e.Sender != device(0) {
			t.Errorf("entry %d: %+v", i, e)
		}
		lent := cap(into) - len(into)
		inside := len(e.Payload) > 0 && strings.Contains(string(into[:cap(into)]), string(e.Payload))
		if fits := i != 3; len(e.Payload) > 0 && inside != fits {
			t.Errorf("entry %d of %d bytes in %d that were lent: %v", i, len(e.Payload), lent, inside)
		}
		_ = append(e.Payload, 'x') // reaches into nobody's memory
	}
	if string(entries[2].Payload) != texts[2] || string(entries[4].Payload) != texts[4] {
		t.Error("payloads overlap")
	}
	for _, c := range []struct{ after, count, bytes, want int }{{0, 2, 1000, 2}, {0, 10, 149, 2}, {0, 10, 150, 3}, {0, 10, 1, 1}, {4, 10, 1000, 1}, {5, 10, 1000, 0}} {
		entries, err := s.ReadInto(t.Context(), device(1), uint64(c.after), c.count, c.bytes, nil)
		if err != nil || len(entries) != c.want {
			t.Errorf("%+v: %d entries, %v", c, len(entries), err)
		}
	}
	if err := s.Quarantine(t.Context(), device(1), true); err != nil {
		t.Fatal(err)
	}
	if entries, err := s.ReadInto(t.Context(), device(1), 0, 10, 1000, into); err != nil || len(entries) != 0 {
		t.Errorf("in quarantine: %d entries, %v", len(entries), err)
	}
	if entries, err := s.Read(t.Context(), device(2), 0, 10, 1000); err != nil || len(entries) != 3 {
		t.Errorf("control: %d entries, %v", len(entries), err)
	}
}
