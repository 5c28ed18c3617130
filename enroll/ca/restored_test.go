// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/elliptic"
	"errors"
	"testing"

	"valise/internal/store/authority"
)

// setRestored marks the authority as restored, or takes the mark away.
func (o *office) setRestored(t *testing.T, restored bool) {
	t.Helper()
	err := o.ca.cfg.Store.Recover(t.Context(), func(tx *authority.Tx) error {
		if restored {
			return tx.SetFlag(authority.FlagRestored, nil)
		}
		return tx.ClearFlag(authority.FlagRestored)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A restored authority has its token sign nothing: neither what is new, nor what it
// recorded before the backup was made. When gateways were asked, the control, it does.
func TestRestoredSignsNothing(t *testing.T) {
	for name, crashed := range map[string]bool{"new": false, "recorded": true} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, elliptic.P256())
			o.order(t, "a")
			issue := func() error { _, err := o.ca.IssueDevice(t.Context(), "a"); return err }
			if crashed {
				o.crashAfterRecording(t, issue)
			}
			leaves := o.leaves(t)
			o.setRestored(t, true)
			if err := issue(); !errors.Is(err, authority.ErrRestored) || o.key.signed.Load() != 0 || o.leaves(t) != leaves {
				t.Errorf("got %v, %d signatures, %d leaves of %d", err, o.key.signed.Load(), o.leaves(t), leaves)
			}
			o.setRestored(t, false)
			if err := issue(); err != nil || o.key.signed.Load() == 0 {
				t.Errorf("control: %v", err)
			}
		})
	}
}

// Its HTTPS certificate is due for renewal, which is not possible: the old one serves
// until it expires, so that gateways can tell what is missing.
func TestRestoredKeepsServerCertificate(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	key, names := newFakeKey(t, elliptic.P256()).Public(), []string{"enroll.interieur.example"}
	first, err := o.ca.IssueServer(t.Context(), key, names)
	if err != nil {
		t.Fatal(err)
	}
	o.setRestored(t, true)
	o.now = o.now.Add(61 * day)
	if second, err := o.ca.IssueServer(t.Context(), key, names); err != nil || second.Ref != first.Ref {
		t.Errorf("due for renewal: %v", err)
	}
	o.now = o.now.Add(30 * day)
	if _, err := o.ca.IssueServer(t.Context(), key, names); !errors.Is(err, authority.ErrRestored) {
		t.Errorf("expired: %v", err)
	}
}
