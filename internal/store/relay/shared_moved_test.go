// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"testing"

	"valise/gateway/mailbox"
	"valise/internal/testenv"
)

// What comes over a connection that its device has left for another gateway is not done, and
// acknowledges nothing: it may be another copy's. Everything beside it in the batch is done.
func TestNothingOverAnOldConnection(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one, two := openNode(t, database, "one", mailbox.Quota{}), openNode(t, database, "two", mailbox.Quota{})
	old := arrive(t, one, device(0), incarnation, true)
	arrive(t, one, device(1), incarnation, true)
	arrive(t, one, device(2), incarnation, true)
	found := content(0, 1, "", 0)
	found.Require, found.Messages = nil, nil
	found.Step = &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("info"), Records: []mailbox.Record{{Key: "k", Value: []byte("v")}}, Joined: []mailbox.Device{device(0)}}
	found.Turn = old.Turn
	if o := apply(t, one, found); o.Verdict != mailbox.Done {
		t.Fatalf("over the only connection: %+v", o)
	}
	to := content(1, 1, "for the one who moves", 0)
	to.Require, to.Messages[0].Group = nil, []byte("g")
	if o := apply(t, one, to); o.Verdict != mailbox.Done {
		t.Fatalf("%+v", o)
	}
	newer := arrive(t, two, device(0), incarnation, false)
	if newer.Turn <= old.Turn {
		t.Fatalf("turn %d after %d", newer.Turn, old.Turn)
	}
	said := func(turn uint64) *mailbox.Submission {
		s := content(0, 2, "said", 2)
		s.Require, s.Messages[0].Group, s.Turn = nil, []byte("g"), turn
		return s
	}
	beside := content(1, 2, "beside", 2)
	beside.Require, beside.Messages[0].Group = nil, []byte("g")
	outcomes, err := one.Apply(t.Context(), []*mailbox.Submission{said(old.Turn), beside}, []mailbox.Ack{{Device: device(0), Number: 1, Turn: old.Turn}})
	if err != nil {
		t.Fatal(err)
	}
	if outcomes[0].Verdict != mailbox.Moved || outcomes[1].Verdict != mailbox.Done {
		t.Errorf("over the old connection and beside it: %+v", outcomes)
	}
	if mail, err := two.Read(t.Context(), device(0), 0, 10, 1<<20); err != nil || len(mail) != 1 {
		t.Errorf("an acknowledgement over the old connection took mail away: %v, %v", mail, err)
	}
	outcomes, err = two.Apply(t.Context(), []*mailbox.Submission{said(newer.Turn)}, []mailbox.Ack{{Device: device(0), Number: 1, Turn: newer.Turn}})
	if err != nil || outcomes[0].Verdict != mailbox.Done {
		t.Errorf("over the newest: %+v, %v", outcomes, err)
	}
	if mail, err := one.Read(t.Context(), device(0), 0, 10, 1<<20); err != nil || len(mail) != 0 {
		t.Errorf("an acknowledgement over the newest: %v, %v", mail, err)
	}
}

// Epochs are what tells a group in memory from an old one.
func TestEpochs(t *testing.T) {
	n := openNode(t, testenv.Postgres(t).DSN, "one", mailbox.Quota{})
	arrive(t, n, device(0), incarnation, true)
	found := content(0, 1, "", 0)
	found.Require, found.Messages = nil, nil
	found.Step = &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("info"), Records: []mailbox.Record{{Key: "k", Value: []byte("v")}}, Joined: []mailbox.Device{device(0)}}
	apply(t, n, found)
	step := content(0, 2, "", 0)
	step.Require, step.Messages = nil, nil
	step.Step = &mailbox.Step{Group: []byte("g"), From: 0, To: 1, Info: []byte("info")}
	if o := apply(t, n, step); o.Verdict != mailbox.Done {
		t.Fatalf("%+v", o)
	}
	epochs, err := n.Epochs(t.Context(), [][]byte{[]byte("g"), []byte("nobody's")})
	if err != nil || len(epochs) != 1 || epochs["g"] != 1 {
		t.Errorf("%v, %v", epochs, err)
	}
}
