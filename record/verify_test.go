// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"slices"
	"testing"

	"valise/enroll/enrolltest"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// An auditor finds everything that is wrong in a copy, and goes on after each.
func TestVerify(t *testing.T) {
	d := newDesk(t)
	template := d.device()
	d.ok(d.say(d.Otto, d.suspension(statement.Target{Kind: statement.TargetDevice, Device: template.Device})))
	if f := d.verify(); len(f) != 0 {
		t.Fatalf("control: %v", f)
	}
	find := func(findings []record.Finding, want record.Reason, at int64) {
		t.Helper()
		if !slices.ContainsFunc(findings, func(f record.Finding) bool { return f.Reason == want && f.Index == at }) {
			t.Errorf("no %s at %d in %v", want, at, findings)
		}
	}
	last := int64(len(d.items) - 1)

	t.Run("a planted certificate", func(t *testing.T) {
		planted := d.plant(d.items, ledger.KindIssuance, d.tbs(d.Template(t, "alice", nil)))
		find(d.verifyItems(planted, headOf(t, planted)), record.NoApproval, last+1)
	})
	t.Run("a forged approval and what stands on it", func(t *testing.T) {
		forged := d.Template(t, "alice", nil)
		b := d.approval("request-7", forged)
		raw := d.Oscar.Sign(t, d.now, b)
		raw[len(raw)-9] ^= 1
		planted := d.plant(d.items, ledger.KindStatement, d.Olga.Sign(t, d.now, b))
		planted = d.plant(planted, ledger.KindStatement, raw)
		planted = d.plant(planted, ledger.KindIssuance, d.tbs(forged))
		findings := d.verifyItems(planted, headOf(t, planted))
		if len(findings) != 2 {
			t.Errorf("got %v", findings)
		}
		find(findings, record.NoApproval, last+3)
	})
	t.Run("a rewritten leaf", func(t *testing.T) {
		items := slices.Clone(d.items)
		line := d.line("alice", enrolltest.Clearance(t, 1, 2, 3, 4))
		items[2] = d.item(ledger.KindStatement, d.Olga.Sign(t, d.now, line))
		items[2].Index = 2
		find(d.verifyItems(items, d.state.Head()), record.Rewritten, last)
	})
	t.Run("a leaf taken out at the end", func(t *testing.T) {
		find(d.verifyItems(d.items[:last], d.state.Head()), record.Truncated, last)
	})
	t.Run("a leaf too many", func(t *testing.T) {
		planted := d.plant(d.items, ledger.KindStatement, d.Olga.Sign(t, d.now, &statement.Refusal{Request: "a", Reason: "b"}))
		find(d.verifyItems(planted, d.state.Head()), record.Unsigned, last+1)
	})
	t.Run("another root", func(t *testing.T) {
		other := newDesk(t)
		find(other.verifyItems(d.items, d.state.Head()), record.BadFounding, 0)
	})
	t.Run("nothing", func(t *testing.T) {
		if f := d.verifyItems(nil, ledger.Empty); len(f) != 0 {
			t.Errorf("got %v", f)
		}
		find(d.verifyItems(nil, d.state.Head()), record.Truncated, 0)
	})
}

func (d *desk) plant(items []ledger.Item, k ledger.Kind, payload []byte) []ledger.Item {
	i := d.item(k, payload)
	i.Index = int64(len(items))
	return append(slices.Clone(items), i)
}

func headOf(t testing.TB, items []ledger.Item) ledger.Head {
	t.Helper()
	var b ledger.Builder
	for _, i := range items {
		if err := b.Add(i.Entry.Leaf()); err != nil {
			t.Fatal(err)
		}
	}
	return b.Head()
}

// Whatever stands in a record, replaying it ends, and in findings.
func FuzzApply(f *testing.F) {
	d := newDesk(f)
	for _, i := range d.items {
		f.Add(uint8(i.Entry.Kind), i.Payload)
	}
	f.Add(uint8(ledger.KindIssuance), d.Issuing.RawTBSCertificate)
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		entry, err := ledger.NewEntry(ledger.Kind(kind), payload, d.now)
		if err != nil {
			return
		}
		d.state.Begin()
		head := d.state.Head()
		if err := d.state.Apply(ledger.Item{Index: d.state.Size(), Entry: entry, Payload: payload}); err != nil && record.ReasonOf(err) == "" {
			t.Errorf("not a finding: %v", err)
		}
		d.state.Rollback()
		if d.state.Head() != head {
			t.Error("something stayed")
		}
	})
}
