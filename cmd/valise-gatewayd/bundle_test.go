// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway"
	"valise/gateway/feed"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/daemon"
	"valise/internal/store/relay"
	"valise/internal/testenv/paper"
	"valise/policy/bundle"
)

// An operator lays bundles down and sends SIGHUP: what holds is in force, what does
// not leaves the old one there and stands in the audit file.
func TestBundleReload(t *testing.T) {
	a := paper.New(t, "interieur.example")
	olga, otto := a.Officer("olga", identity.RoleOfficer), a.Officer("otto", identity.RoleOfficer)
	cfg, err := loadConfig(importing(t, a))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Bundle = filepath.Join(t.TempDir(), "policy.bundle")
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	doctrine := paper.NewDoctrine(t, "tlp")
	sign := func(version uint32, officers ...*paper.Officer) (hash [32]byte, file []byte) {
		contents, compiled := doctrine.Bundle(version, doctrine.Folder("", bundle.Domains{Unlabelled: true}))
		_, file = paper.SignBundle(t, contents, [32]byte{}, officers...)
		return compiled.Hash, file
	}
	one, good := sign(1, olga, otto)
	two, single := sign(2, olga)
	_, next := sign(2, olga, otto)
	lay := func(data []byte) {
		if err := os.WriteFile(cfg.Bundle, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lay(good)

	s := &server{cfg: cfg, log: slog.New(slog.DiscardHandler), trust: a.Trust()}
	if s.audit, err = daemon.OpenAudit(cfg.Audit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	d := daemon.New(daemon.Config{Log: s.log})
	open, err := cfg.feedConfig()
	if err != nil {
		t.Fatal(err)
	}
	open.Path = filepath.Join(cfg.Data, "record.db")
	if s.feed, err = feed.Open(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	db, err := relay.OpenJournaled(t.Context(), relay.Config{Path: filepath.Join(cfg.Data, "relay.db")})
	if err != nil {
		t.Fatal(err)
	}
	s.store = db
	if err := s.openRules(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if s.gateway, err = gateway.New(gateway.Config{
		Trust: s.trust, Domain: cfg.Domain, Certificate: a.Gateway("127.0.0.1"), Store: s.store, Dir: cfg.Data, Audit: s.record, Log: s.log, Rules: s.rules.Now(),
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.applyFeed(ctx)
	ended := make(chan error, 2)
	go func() { ended <- s.feed.Run(ctx) }()
	go func() { ended <- s.reload(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	}()

	manifest, _ := a.First()
	handed := func(kind feed.Document, raw []byte) {
		t.Helper()
		path, err := feed.Put(open.Spool, kind, raw)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, "the spool", func() bool {
			done, err := feed.Outcome(path)
			if err != nil {
				t.Fatal(err)
			}
			return done
		})
	}
	names := func(number uint64, hash [32]byte) {
		b := a.Bulletin(number)
		b.Bundle, b.LedgerSize = hash, 9
		for _, o := range []*paper.Officer{olga, otto} {
			b.Officers = append(b.Officers, bulletin.OfficerStanding{Key: o.ID, Address: o.Address, Role: o.Role, State: bulletin.Active})
		}
		if b.Officers[0].Key.Compare(b.Officers[1].Key) > 0 {
			b.Officers[0], b.Officers[1] = b.Officers[1], b.Officers[0]
		}
		handed(feed.DocumentBulletin, a.SignBulletin(b))
	}
	inForce := func(version uint32, missing bool) bool {
		state := s.gateway.Rules()
		return state != nil && state.Bundle != nil && state.Bundle.Version == version && state.Missing == missing
	}
	// Whoever is listening or not, the signal does not end this process.
	guard := make(chan os.Signal, 1)
	signal.Notify(guard, syscall.SIGHUP)
	defer signal.Stop(guard)
	hangup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	audited := func(text string) func() bool {
		return func() bool {
			data, err := os.ReadFile(cfg.Audit)
			return err == nil && bytes.Contains(data, []byte(text))
		}
	}
	if s.gateway.Rules() != nil {
		t.Fatal("in force without a bulletin")
	}
	handed(feed.DocumentManifest, manifest)
	names(1, one)
	wait(t, "version 1", func() bool { return inForce(1, false) })

	lay(good[:100])
	hangup()
	wait(t, "the refusal of half a file", audited("bundle_malformed"))
	if !inForce(1, false) {
		t.Error("version 1 is not in force any more")
	}
	lay(single)
	hangup()
	wait(t, "the one that waits", audited("bundle_waits"))
	names(2, two)
	wait(t, "the refusal of one signature", audited("bundle_signatures"))
	wait(t, "the gap", func() bool { return inForce(1, true) })
	if s.rules.Check(t.Context()) == nil {
		t.Error("healthy without the bundle in force")
	}
	lay(next)
	hangup()
	wait(t, "version 2", func() bool { return inForce(2, false) })
	lay(good)
	hangup()
	wait(t, "the refusal of the old one", audited("bundle_rollback"))
	if kept, err := rules.ReadFile(filepath.Join(cfg.Data, "bundle.signed")); err != nil || !bytes.Equal(kept, next) {
		t.Errorf("what is in force does not lie on the disk: %v", err)
	}
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
