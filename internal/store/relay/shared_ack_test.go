// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"testing"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/testenv"
)

// An acknowledgement waits for nobody: where another gateway is at the mailbox it is put off,
// and done by a later batch. One that was put off too often is waited for.
func TestAcksPassOver(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one, two := openNode(t, database, "one", mailbox.Quota{}), openNode(t, database, "two", mailbox.Quota{})
	populate(t, one, 3)
	apply(t, one, content(0, 2, "x", 1, 2))
	acks := []mailbox.Ack{{Device: device(1), Number: 1}, {Device: device(2), Number: 1}}
	left := func(d int) int { return len(read(t, one, d, 0)) }
	err := two.db.UpdateRows(t.Context(), false, func(f *store.Flow) error {
		if _, err := f.Exec(`SELECT 1 FROM states WHERE device = (SELECT id FROM devices WHERE device = $1) FOR UPDATE`, raw([]mailbox.Device{device(1)})[0]); err != nil {
			return err
		}
		for range maxPassed {
			if _, err := one.Apply(t.Context(), nil, acks); err != nil {
				t.Error(err)
			}
			if off := one.PutOff(); len(off) != 1 || off[0] != acks[0] {
				t.Errorf("put off: %v", off)
			}
			if left(1) != 1 || left(2) != 0 {
				t.Errorf("%d and %d entries are left", left(1), left(2))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Too often: it is not passed over any more, and nobody is in its way.
	if _, err := one.Apply(t.Context(), nil, acks); err != nil || len(one.PutOff()) != 0 || left(1) != 0 {
		t.Errorf("%v, put off %v, %d left", err, one.PutOff(), left(1))
	}
	if totals, err := one.Totals(t.Context()); err != nil || totals.Pointers != 0 || totals.Messages != 0 {
		t.Errorf("%+v, %v", totals, err)
	}
	if st := arrive(t, two, device(1), incarnation, false); st.Acknowledged != 1 {
		t.Errorf("%+v", st)
	}
}
