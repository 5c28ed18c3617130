// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"valise/client"
	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// auditRun runs a command line and returns what it printed and its exit status.
func auditRun(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var c struct {
		Audit AuditCmd `cmd:""`
	}
	var out bytes.Buffer
	e := &env{}
	parser, err := kong.New(&c, kong.Exit(func(int) { t.Error("kong exits") }), kong.Bind(e), kong.BindTo(io.Writer(&out), (*io.Writer)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	k, err := parser.Parse(append([]string{"audit", "verify"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	if k.Command() != "audit verify <dir>" {
		t.Fatalf("command %q", k.Command())
	}
	err = c.Audit.Verify.Run(t.Context(), e, &out)
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &coded):
		return out.String() + "error: " + err.Error(), coded.ExitCode()
	}
	t.Fatalf("an error without status: %v", err)
	return "", 0
}

// An honest copy, with checkpoints that others kept and certificates that were
// seen, is in order, whether the root is pinned by its hash or as a file.
func TestAuditHonest(t *testing.T) {
	b := newBooks(t)
	dir := b.copy(t)
	seen := b.seen(t)
	sum := sha256.Sum256(b.root.Raw)
	old := b.file(t, "kept", b.checkpoint(t, b.items[:12], b.ledgerKey))
	newest := b.file(t, "newest", b.checkpoint(t, b.items, b.ledgerKey))
	root := b.file(t, "root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.root.Raw}))
	der := b.file(t, "root.der", b.root.Raw)
	for _, pin := range []string{hex.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:])), root, der} {
		out, status := auditRun(t, dir, "--root", pin, "--checkpoint", old, "--checkpoint", newest, "--certificates", seen)
		if want := "audit: ok: 19 leaves, 7 certificates, 10 statements, 0 findings\n"; out != want || status != 0 {
			t.Errorf("pin %s: status %d\n%s\nwant %s", pin, status, out, want)
		}
	}
	out, status := auditRun(t, dir, "--root", root, "--json")
	if want := `"leaves":19`; !strings.Contains(out, want) || !strings.Contains(out, `"ok":true`) || status != 0 {
		t.Errorf("status %d\n%s\nwant %s", status, out, want)
	}
}

// finding is a line that begins with a place and a code.
var finding = regexp.MustCompile(`(?m)^(leaf \d+|copy): ([a-z_]+): `)

// Each fraud is found under its code; what is not in the list of codes is not
// reported.
func TestAuditFindsFraud(t *testing.T) {
	const mallory = "mallory@" + auditDomain
	for name, c := range map[string]struct {
		fraud func(t *testing.T, b *books) (dir string, args []string)
		want  []string
	}{
		"a certificate without approvals": {func(t *testing.T, b *books) (string, []string) {
			b.decide(b.roster(mallory), 0, 1)
			b.issueDevice(t, mallory, b.key(t))
			return b.copy(t), nil
		}, []string{"leaf 21: no_approval"}},
		"a certificate that one officer approved": {func(t *testing.T, b *books) (string, []string) {
			b.decide(b.roster(mallory), 0, 1)
			key := b.key(t)
			b.decide(b.approval(t, mallory, key), 0)
			b.issueDevice(t, mallory, key)
			return b.copy(t), nil
		}, []string{"leaf 22: no_approval"}},
		"an officer approves twice": {func(t *testing.T, b *books) (string, []string) {
			b.decide(b.roster(mallory), 0, 1)
			key := b.key(t)
			b.decide(b.approval(t, mallory, key), 0, 0)
			b.issueDevice(t, mallory, key)
			return b.copy(t), nil
		}, []string{"leaf 22: same_officer_twice", "leaf 23: no_approval"}},
		"an approval of an officer who was suspended": {func(t *testing.T, b *books) (string, []string) {
			b.decide(b.roster(mallory), 0, 1)
			b.decide(&statement.Suspension{
				Target: statement.Target{Kind: statement.TargetOfficer, Address: b.address("officer0@" + auditDomain)}, Reason: "gone", Change: statement.NewID(),
			}, 2)
			key := b.key(t)
			b.decide(b.approval(t, mallory, key), 0, 1)
			b.issueDevice(t, mallory, key)
			return b.copy(t), nil
		}, []string{"leaf 22: officer_not_in_standing", "leaf 24: no_approval"}},
		"approvals of one key, spent on another too": {func(t *testing.T, b *books) (string, []string) {
			b.decide(b.roster(mallory), 0, 1)
			key := b.key(t)
			b.decide(b.approval(t, mallory, key), 0, 1)
			b.issueDevice(t, mallory, key)
			b.issueDevice(t, mallory, b.key(t))
			return b.copy(t), nil
		}, []string{"leaf 24: no_approval"}},
		"a gateway's certificate without approvals": {func(t *testing.T, b *books) (string, []string) {
			b.issueGateway(t, b.gateway(t))
			return b.copy(t), nil
		}, []string{"leaf 19: no_approval"}},
		"a gateway's certificate that one officer approved": {func(t *testing.T, b *books) (string, []string) {
			g := b.gateway(t)
			b.decide(g, 0)
			b.issueGateway(t, g)
			return b.copy(t), nil
		}, []string{"leaf 20: no_approval"}},
		"a gateway's certificate with a name more than approved": {func(t *testing.T, b *books) (string, []string) {
			g := b.gateway(t)
			b.decide(g, 0, 1)
			b.issueGateway(t, g) // control: nothing is found about it
			g.Names = append(g.Names, "gw2."+auditDomain)
			b.issueGateway(t, g)
			return b.copy(t), nil
		}, []string{"leaf 22: no_approval"}},
		"a certificate of an issuer whose use has ended": {func(t *testing.T, b *books) (string, []string) {
			b.decide(b.roster(mallory), 0, 1)
			key := b.key(t)
			b.decide(b.approval(t, mallory, key), 0, 1)
			b.distrust(t)
			b.issueDevice(t, mallory, key)
			return b.copy(t), nil
		}, []string{"leaf 24: wrong_issuer"}},
		"a leaf rewritten in its files": {func(t *testing.T, b *books) (string, []string) {
			dir := b.copy(t)
			// The same statement under another salt, so that only the tree tells.
			at := 2 + 10
			for range 8 {
				at += 2 + ledger.EntrySize
			}
			patch(t, filepath.Join(dir, "entries"), at, 1)
			return dir, nil
		}, []string{"leaf 8: tile_mismatch", "leaf 18: rewritten_leaf"}},
		"a leaf rewritten everywhere, under the same checkpoint": {func(t *testing.T, b *books) (string, []string) {
			honest := b.checkpoint(t, b.items, b.ledgerKey)
			b.rewrite(t, 8)
			dir := b.copy(t)
			replace(t, filepath.Join(dir, "checkpoint"), honest)
			return dir, nil
		}, []string{"leaf 18: rewritten_leaf"}},
		"a fork, shown by a checkpoint that somebody kept": {func(t *testing.T, b *books) (string, []string) {
			kept := b.file(t, "kept", b.checkpoint(t, b.items[:15], b.ledgerKey))
			b.rewrite(t, 8)
			return b.copy(t), []string{"--checkpoint", kept}
		}, []string{"leaf 14: ledger_fork"}},
		"leaves taken off the end, against a checkpoint that somebody kept": {func(t *testing.T, b *books) (string, []string) {
			kept := b.file(t, "kept", b.checkpoint(t, b.items, b.ledgerKey))
			b.items = b.items[:17]
			return b.copy(t), []string{"--checkpoint", kept}
		}, []string{"copy: copy_behind"}},
		"a leaf taken out of the files": {func(t *testing.T, b *books) (string, []string) {
			dir := b.copy(t)
			cut(t, filepath.Join(dir, "entries"), 18*(2+ledger.EntrySize), 2+ledger.EntrySize)
			size := 0
			for _, i := range b.items[:18] {
				size += 4 + len(i.Payload)
			}
			cut(t, filepath.Join(dir, "payloads"), size, 4+len(b.items[18].Payload))
			return dir, nil
		}, []string{"leaf 18: damaged_copy", "leaf 18: truncated"}},
		"a payload swapped": {func(t *testing.T, b *books) (string, []string) {
			dir := b.copy(t)
			size := 0
			for _, i := range b.items[:18] {
				size += 4 + len(i.Payload)
			}
			patch(t, filepath.Join(dir, "payloads"), size+4+len(b.items[18].Payload)-1, 1)
			return dir, nil
		}, []string{"leaf 18: wrong_payload"}},
		"a tile of another tree": {func(t *testing.T, b *books) (string, []string) {
			dir := b.copy(t)
			patch(t, filepath.Join(dir, "tile/0/000.p/19"), 40, 1)
			return dir, nil
		}, []string{"copy: tile_mismatch"}},
		"a checkpoint under a key that no manifest names": {func(t *testing.T, b *books) (string, []string) {
			dir := b.copy(t)
			replace(t, filepath.Join(dir, "checkpoint"), b.checkpoint(t, b.items, newLedgerKey(t)))
			return dir, nil
		}, []string{"copy: bad_checkpoint"}},
		"a kept checkpoint that nobody signed": {func(t *testing.T, b *books) (string, []string) {
			kept := b.file(t, "kept", b.checkpoint(t, b.items[:9], newLedgerKey(t)))
			return b.copy(t), []string{"--checkpoint", kept}
		}, []string{"copy: bad_checkpoint"}},
		"a kept file that is no checkpoint": {func(t *testing.T, b *books) (string, []string) {
			return b.copy(t), []string{"--checkpoint", b.file(t, "kept", []byte("hello"))}
		}, []string{"copy: bad_checkpoint"}},
		"a certificate that was never recorded": {func(t *testing.T, b *books) (string, []string) {
			dir := b.copy(t)
			b.issueDevice(t, mallory, b.key(t)) // in no leaf of the copy
			return dir, []string{"--certificates", b.seen(t)}
		}, []string{"copy: not_in_ledger"}},
		"a certificate of somebody else": {func(t *testing.T, b *books) (string, []string) {
			other := newBooks(t)
			seen := b.seen(t)
			other.put(t, seen, "stranger.pem", other.devices[0])
			return b.copy(t), []string{"--certificates", seen}
		}, []string{"copy: foreign_certificate"}},
		"a record of another root": {func(t *testing.T, b *books) (string, []string) {
			dir := b.copy(t)
			b.root = newBooks(t).root
			return dir, nil
		}, []string{"leaf 0: bad_founding", "leaf 5: no_founding", "copy: bad_checkpoint"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBooks(t)
			dir, args := c.fraud(t, b)
			root := b.file(t, "root.der", b.root.Raw)
			out, status := auditRun(t, append([]string{dir, "--root", root}, args...)...)
			var codes []string
			for _, m := range finding.FindAllStringSubmatch(out, -1) {
				codes = append(codes, m[1]+": "+m[2])
			}
			for _, want := range c.want {
				if !slices.Contains(codes, want) {
					t.Errorf("%s was not found", want)
				}
			}
			if name != "a record of another root" && len(codes) != len(c.want) {
				t.Errorf("found %q, want %q", codes, c.want)
			}
			if status != 1 || !strings.Contains(out, "\naudit: ") || strings.Contains(out, "audit: ok") {
				t.Errorf("status %d", status)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// After a ledger key was replaced the old one's checkpoints count up to the
// manifest that ends it, and no further.
func TestAuditReplacedLedgerKey(t *testing.T) {
	b := newBooks(t)
	before := b.checkpoint(t, b.items, b.ledgerKey)
	lost := b.ledgerKey
	b.ledgerKey = newLedgerKey(t)
	b.renew(t, lost)
	b.decide(b.roster("dora@"+auditDomain), 0, 1)
	root := b.file(t, "root.der", b.root.Raw)
	kept := b.file(t, "kept", before)
	if out, status := auditRun(t, b.copy(t), "--root", root, "--checkpoint", kept); status != 0 {
		t.Errorf("the honest control: status %d\n%s", status, out)
	}
	stolen := b.file(t, "stolen", b.checkpoint(t, b.items, lost))
	out, status := auditRun(t, b.copy(t), "--root", root, "--checkpoint", stolen)
	if status != 1 || !strings.Contains(out, "copy: bad_checkpoint: ") {
		t.Errorf("the lost key's checkpoint: status %d\n%s", status, out)
	}
}

// What cannot be read is neither in order nor a finding.
func TestAuditUnreadable(t *testing.T) {
	b := newBooks(t)
	dir := b.copy(t)
	root := b.file(t, "root.der", b.root.Raw)
	empty := t.TempDir()
	junk := t.TempDir()
	if err := os.WriteFile(filepath.Join(junk, "a.pem"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"no copy":                   {empty, "--root", root},
		"no such root":              {dir, "--root", filepath.Join(empty, "root")},
		"a root in no document":     {dir, "--root", strings.Repeat("ab", 32)},
		"a root that is none":       {dir, "--root", filepath.Join(junk, "a.pem")},
		"no such checkpoint":        {dir, "--root", root, "--checkpoint", filepath.Join(empty, "kept")},
		"no such certificates":      {dir, "--root", root, "--certificates", filepath.Join(empty, "certs")},
		"certificates that are not": {dir, "--root", root, "--certificates", junk},
	} {
		if out, status := auditRun(t, args...); status != 2 || strings.Contains(out, "audit: ok") {
			t.Errorf("%s: status %d\n%s", name, status, out)
		}
	}
}

func newLedgerKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// patch changes one byte of a file, cut takes some out, replace writes it anew.
func patch(t *testing.T, name string, at int, bits byte) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= bits
	replace(t, name, data)
}

func cut(t *testing.T, name string, at, n int) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, name, slices.Delete(data, at, at+n))
}

func replace(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func after(t time.Time, n int) time.Time { return t.Add(time.Duration(n) * time.Minute) }

// Trouble with the record reads as trouble.
func TestRecordEventsInWords(t *testing.T) {
	for want, ev := range map[string]client.Event{
		"TROUBLE with the authority's public record: the public record is not the one that was shown before: something in it was changed (ledger_fork); nobody new is let in": {Kind: client.EventRecord, Reason: "ledger_fork"},
		"the authority's public record is in order again": {Kind: client.EventRecord},
		"[team] * the device 01000000 of mallory@interieur.example was NOT LET IN: its certificate is not in the authority's public record (not_in_ledger)": {
			Kind: client.EventUnrecorded, Reason: "not_in_ledger", Name: "team", From: "mallory@interieur.example", Device: identity.DeviceID{1},
		},
		"[team] * carol@interieur.example (02000000) is out of this conversation: the device was suspended (device_suspended)": {
			Kind: client.EventRemoved, Reason: "device_suspended", Name: "team", From: "bob@interieur.example",
			Members: []client.Member{{Address: "carol@interieur.example", Device: identity.DeviceID{2}}},
		},
		"[team] * bob@interieur.example removed carol@interieur.example (02000000)": {
			Kind: client.EventRemoved, Name: "team", From: "bob@interieur.example",
			Members: []client.Member{{Address: "carol@interieur.example", Device: identity.DeviceID{2}}},
		},
	} {
		if got := describe(&ev); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}
