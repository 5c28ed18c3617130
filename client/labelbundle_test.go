// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"
	"testing/fstest"

	"valise/gateway/rules"
	"valise/ledger"
	"valise/policy/bundle"
)

// A device takes the bundle in force by itself, keeps it over a restart, and is told of
// the next one.
func TestBundleIsTaken(t *testing.T) {
	c := newCabinet(t)
	c.enact(1, c.folder())
	alice := c.device("alice").reachable().obeys(1)
	if alice.told(EventPolicy, reasonBundleMissing) {
		t.Errorf("trouble in an honest world: %+v", alice.all())
	}
	alice.restart()
	if alice.version() != 1 {
		t.Error("the bundle is gone after a restart")
	}
	alice.reachable()
	c.enact(2, c.folder())
	alice.obeys(2)
	versions := 0
	for _, ev := range alice.all() {
		if ev.Kind == EventPolicy && ev.Reason == "" {
			versions++
		}
	}
	if versions != 2 {
		t.Errorf("%d events tell of bundles, want 2: %+v", versions, alice.all())
	}
}

// A bundle that is not what the officers put into force is refused with a reason, sends
// nothing, and gives way to the true one.
func TestBundleRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		forge  func(c *cabinet) *rules.State
		reason string
	}{
		"signed by one": {func(c *cabinet) *rules.State {
			return c.recorded(c.pack(2, c.folder(), c.olga))
		}, reasonBundleSignatures},
		"signed by one twice": {func(c *cabinet) *rules.State {
			return c.recorded(c.pack(2, c.folder(), c.olga, c.olga))
		}, reasonBundleSignatures},
		"not on record": {func(c *cabinet) *rules.State {
			return c.pack(2, c.folder(), c.olga, c.oskar)
		}, reasonBundleSignatures},
		"on record as something else": {func(c *cabinet) *rules.State {
			state := c.pack(2, c.folder(), c.olga, c.oskar)
			signed, _ := bundle.ParseSigned(state.File)
			for _, raw := range signed.Statements {
				c.shelf.record(ledger.KindIssuance, raw)
			}
			c.shelf.publish()
			return state
		}, reasonBundleSignatures},
		"signed by strangers": {func(c *cabinet) *rules.State {
			other := newCabinet(c.t)
			return c.recorded(c.pack(2, c.folder(), other.olga, other.oskar))
		}, reasonBundleSignatures},
		"of the same version": {func(c *cabinet) *rules.State {
			folder := c.folder()
			folder[bundle.RulesFile] = &fstest.MapFile{Data: []byte("// another one\n")}
			return c.recorded(c.pack(1, folder, c.olga, c.oskar))
		}, reasonBundleRollback},
		"with other octets than are named": {func(c *cabinet) *rules.State {
			state := c.recorded(c.pack(2, c.folder(), c.olga, c.oskar))
			state.File[len(state.File)/2] ^= 1
			return state
		}, reasonBundleMalformed},
		"held back": {func(c *cabinet) *rules.State {
			state := c.recorded(c.pack(2, c.folder(), c.olga, c.oskar))
			return &rules.State{Bundle: state.Bundle, File: state.File, Missing: true}
		}, reasonBundleMissing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCabinet(t)
			c.enact(1, c.folder())
			alice := c.device("alice").reachable().obeys(1)
			alice.kill()
			state := test.forge(c)
			c.announce(state.Bundle.Hash)
			c.serve(state)
			alice.start()
			alice.until("refuses the bundle", func() bool { return alice.told(EventPolicy, test.reason) })
			if alice.version() != 1 {
				t.Errorf("version %d is in force", alice.version())
			}
			c.enact(3, c.folder())
			alice.obeys(3)
		})
	}
}

// An older bulletin does not bring the bundle before back.
func TestBundleRollbackByBulletin(t *testing.T) {
	c := newCabinet(t)
	first := c.enact(1, c.folder())
	old := c.shelf.announced
	alice := c.device("alice").reachable().obeys(1)
	c.enact(2, c.folder())
	alice.obeys(2).kill()
	c.announce(first.Bundle.Hash)
	c.shelf.show(old)
	c.serve(first)
	alice.start()
	alice.reachable()
	alice.until("is told", func() bool { return alice.told(EventRecord, reasonBulletinRollback) })
	if alice.version() != 2 {
		t.Errorf("version %d is in force again", alice.version())
	}
}
