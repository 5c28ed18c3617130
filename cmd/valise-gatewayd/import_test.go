// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/bulletin"
	"valise/gateway/feed"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/statement"
)

// importing writes a configuration as an operator has it and returns its path.
func importing(t *testing.T, a *paper.Authority) string {
	t.Helper()
	dir := t.TempDir()
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Root.Raw})
	path := filepath.Join(dir, "gateway.toml")
	for name, data := range map[string][]byte{"root.pem": root, "gateway.toml": exampleConfig} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "document")
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A suspension that came on a disk is verified, handed to the running gateway
// and obeyed; one of a stranger never reaches it.
func TestImport(t *testing.T) {
	a := paper.New(t, "interieur.example")
	olga, alice := a.Officer("olga", identity.RoleOfficer), a.Device("alice", paper.NewKey(t))
	config := importing(t, a)
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	open, err := cfg.feedConfig()
	if err != nil {
		t.Fatal(err)
	}
	open.Path, open.Certificate = filepath.Join(t.TempDir(), "record.db"), func() *tls.Certificate { return nil }
	f, err := feed.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	body := &statement.Suspension{Target: statement.Target{Kind: statement.TargetDevice, Device: alice.ID}, Reason: "lost", Change: statement.NewID()}
	manifest, _ := a.First()
	other := paper.New(t, "interieur.example")
	run := func(kind string, data []byte) error {
		return (&importCommand{Config: config, Kind: kind, Files: []string{file(t, data)}}).Run(t.Context())
	}
	if err := run("statement", other.Officer("olga", identity.RoleOfficer).Sign(body)); err == nil || !f.Set().Device(alice.ID, alice.Address).Good() {
		t.Errorf("a stranger's suspension: %v", err)
	}
	news := a.Bulletin(1)
	news.LedgerSize = 5 // of a record that this gateway has not seen
	if err := run("bulletin", a.SignBulletin(news)); err == nil || !strings.Contains(err.Error(), "no manifest") {
		t.Errorf("a bulletin before the manifest: %v", err)
	}
	for kind, data := range map[string][]byte{"manifest": manifest, "statement": olga.Sign(body)} {
		if err := run(kind, data); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if got := f.Set().Device(alice.ID, alice.Address); got.State != bulletin.Suspended {
		t.Errorf("after the import: %+v", got)
	}
	if err := run("bulletin", a.SignBulletin(news)); err != nil {
		t.Error(err)
	}
	if f.Set().Number() != 1 {
		t.Errorf("bulletin %d", f.Set().Number())
	}
}
