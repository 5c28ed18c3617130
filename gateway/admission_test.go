// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"
	"time"

	"valise/gateway/group"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// One honest message, and beside it each that differs from it in one property.
func TestAdmit(t *testing.T) {
	now := time.Now()
	alice, bob, eve := deviceFor(t, "alice"), deviceFor(t, "bob"), deviceFor(t, "eve")
	header, err := (&wire.Header{Sequence: 1}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	labelled, err := (&wire.Header{Sequence: 1, Policy: []byte{1}, Labelled: true, Label: []byte("SECRET")}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	view := group.NewView([]byte("g"), 7, alice, bob)
	honest := func() (*snapshot, *message) {
		return &snapshot{now: now, device: alice, domain: "interieur.example", group: view, allowance: allow(1, 1)},
			&message{group: []byte("g"), epoch: 7, info: &mls.MessageInfo{
				Wire: mls.WirePrivateMessage, GroupID: []byte("g"), Epoch: 7, Content: mls.ContentApplication, AuthenticatedData: header,
			}}
	}
	tests := []struct {
		name   string
		change func(*snapshot, *message)
		code   wire.Code
		reason string
	}{
		{"honest", func(*snapshot, *message) {}, wire.OK, ""},
		{"someone else is denied", func(s *snapshot, _ *message) { s.denied = denyList{eve.ID: true} }, wire.OK, ""},
		{"certificate ran out", func(s *snapshot, _ *message) { s.now = alice.Leaf.NotAfter.Add(time.Second) }, wire.Unavailable, "expired"},
		{"clock went back", func(s *snapshot, _ *message) { s.now = alice.Leaf.NotBefore.Add(-time.Second) }, wire.Unavailable, "not_yet_valid"},
		{"sender denied", func(s *snapshot, _ *message) { s.denied = denyList{alice.ID: true} }, wire.NotAllowed, "denied"},
		{"recipient denied", func(s *snapshot, _ *message) { s.denied = denyList{bob.ID: true} }, wire.RecipientRefused, "recipient_denied"},
		{"no member", func(s *snapshot, _ *message) { s.device = eve }, wire.NotMember, "not_member"},
		{"no group", func(s *snapshot, _ *message) { s.group = nil }, wire.UnknownGroup, "unknown_group"},
		{"epoch over", func(s *snapshot, m *message) { m.epoch, m.info.Epoch = 6, 6 }, wire.StaleEpoch, "stale_epoch"},
		{"epoch to come", func(s *snapshot, m *message) { m.epoch, m.info.Epoch = 8, 8 }, wire.StaleEpoch, "stale_epoch"},
		{"message of another group", func(_ *snapshot, m *message) { m.info.GroupID = []byte("h") }, wire.Malformed, "wrong_group"},
		{"message of another epoch", func(_ *snapshot, m *message) { m.info.Epoch = 6 }, wire.Malformed, "wrong_epoch"},
		{"hidden commit", func(_ *snapshot, m *message) { m.info.Content = mls.ContentCommit }, wire.Malformed, "private_handshake"},
		{"hidden proposal", func(_ *snapshot, m *message) { m.info.Content = mls.ContentProposal }, wire.Malformed, "private_handshake"},
		{"no header", func(_ *snapshot, m *message) { m.info.AuthenticatedData = nil }, wire.LabelRefused, "malformed_header"},
		{"header with a tail", func(_ *snapshot, m *message) { m.info.AuthenticatedData = append(header[:len(header):len(header)], 0) }, wire.LabelRefused, "malformed_header"},
		{"label", func(_ *snapshot, m *message) { m.info.AuthenticatedData = labelled }, wire.LabelRefused, "no_policy_for_label"},
		{"other domain", func(s *snapshot, _ *message) { s.domain = "defense.example" }, wire.RecipientRefused, "foreign_domain"},
		{"too much", func(s *snapshot, m *message) {
			m.size = 10
			s.allowance.send(now, s.allowance.limits.BytesBurst, 1, "")
		}, wire.RateLimited, "bytes_limited"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, m := honest()
			test.change(s, m)
			r := admit(s, m)
			if r == nil {
				r = &refusal{}
			}
			if r.code != test.code || r.reason != test.reason {
				t.Errorf("got %v, %q; want %v, %q", r.code, r.reason, test.code, test.reason)
			}
			if r.code == wire.StaleEpoch && r.epoch != 7 {
				t.Errorf("the epoch is given as %d", r.epoch)
			}
		})
	}
}

// A refused message uses up a request and nothing else: its bytes went nowhere.
func TestRefusedMessagesCostNoBytes(t *testing.T) {
	alice := deviceFor(t, "alice")
	header, _ := (&wire.Header{Sequence: 1}).Marshal()
	s := &snapshot{now: time.Now(), device: alice, domain: "interieur.example", group: group.NewView([]byte("g"), 1, alice), allowance: allow(1, 1)}
	m := &message{group: []byte("g"), epoch: 2, size: s.allowance.limits.BytesBurst, info: &mls.MessageInfo{GroupID: []byte("g"), Epoch: 2, Content: mls.ContentApplication, AuthenticatedData: header}}
	for range 5 {
		if r := admit(s, m); r == nil || r.reason != "stale_epoch" {
			t.Fatalf("got %+v", r)
		}
	}
	m.epoch, m.info.Epoch = 1, 1
	if r := admit(s, m); r != nil {
		t.Errorf("the first good message was refused: %+v", r)
	}
	if r := admit(s, m); r == nil || r.reason != "bytes_limited" {
		t.Errorf("the second one: %+v", r)
	}
}

func deviceFor(t testing.TB, local string) *identity.Device {
	t.Helper()
	a := newAuthority(t, "interieur.example")
	chain := a.device(t, local, newKey(t), -time.Hour, time.Hour)
	d, err := a.trust().Device(chain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func FuzzParseDenied(f *testing.F) {
	f.Add("# list\n\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n")
	f.Add("0123")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseDenied(stringReader(text))
		if err != nil {
			return
		}
		for id := range list {
			again, err := identity.ParseDeviceID(id.String())
			if err != nil || again != id {
				t.Errorf("%v does not survive: %v", id, err)
			}
		}
	})
}

func FuzzReasonCode(f *testing.F) {
	f.Add("altered_in_store")
	f.Add("X\n{}")
	f.Fuzz(func(t *testing.T, s string) {
		got := reasonCode(s)
		if got == "" {
			t.Error("empty")
		}
		for _, r := range got {
			if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_') {
				t.Errorf("%q became %q", s, got)
			}
		}
	})
}
