// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
)

// renewDevice enrolls a device again through the account that it has.
func renewDevice(t *testing.T, c *enrolltest.Client, card *enrolltest.Card) [][]byte {
	t.Helper()
	return c.Enroll(identity.Invitation{}, card)
}

func serialOf(t *testing.T, der []byte) string {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert.SerialNumber.Text(16)
}

// The HSM with the issuing, HTTPS, bulletin and ledger keys is destroyed. The root
// comes out of the safe, a fresh token takes its place, and everybody goes on:
// devices renew, the record continues, what was issued counts.
func TestLostHSMIsReplaced(t *testing.T) {
	b, k := newCourt(t)
	b.must("init")
	b.start()
	root := b.root()
	alice, card := b.client(root), b.vendor.Card(t, enrolltest.CardConfig{})
	b.must("roster", "import", "people.csv")
	if r := alice.Register(b.invite("alice")); r.Status != http.StatusCreated {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	o, _ := alice.NewOrder(card.ID(t).String())
	alice.Attest(o, card.Answer(t, alice.KeyAuthorization(o)))
	done, r := alice.Finish(o, enrolltest.CSR(t, card.Key))
	if done == nil || done.Status != "valid" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	before := alice.Fetch(done)
	issuedTo(t, root, before, "alice@interieur.example")
	follower, cancel := b.follow(nil), func() {}
	follow := func() {
		ctx, end := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- follower.Run(ctx) }()
		cancel = sync.OnceFunc(func() { end(); <-stopped })
	}
	t.Cleanup(func() { cancel(); follower.Close() })
	follow()
	until(t, "a bulletin of the first HSM", func() bool { return follower.Set().Number() > 0 })
	cancel()
	held := follower.Set()
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	old, err := manifest.ParseManifest(b.file(manifestFile), root)
	if err != nil {
		t.Fatal(err)
	}
	was := b.file(chainFile)
	older := openNote(t, b.checkpoint(), old)

	destroyToken(t, k.Label)
	if _, err := b.run("serve"); err == nil {
		t.Fatal("the daemon runs without its HSM")
	}
	newToken(t, k, "second")
	b.amend("token="+k.Label, "token=second")
	if _, err := b.run("serve"); err == nil || !strings.Contains(err.Error(), "issuing key") {
		t.Errorf("serve on an empty token: %v", err)
	}
	_, err = b.run("manifest", "renew")
	if err == nil || !strings.Contains(err.Error(), "--replace") || !strings.Contains(err.Error(), "issuing, bulletin, ledger, tls") {
		t.Errorf("renew without being told: %v", err)
	}
	if string(b.file(chainFile)) != string(was) {
		t.Fatal("a refused renewal changed something")
	}
	out := b.must("manifest", "renew", "--replace")
	if !strings.Contains(out, "manifest 2 of "+domain) || strings.Count(out, "until ") != 3 {
		t.Errorf("renew printed\n%s", out)
	}
	b.audit("manifest signed")

	// The root is not needed any more.
	destroyToken(t, "safe")
	b.start()
	after := renewDevice(t, alice, card)
	issuedTo(t, root, after, "alice@interieur.example")
	if string(after[1]) == string(before[1]) || serialOf(t, after[0]) == serialOf(t, before[0]) {
		t.Error("the renewal was issued by the lost key")
	}
	trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{root}})
	if _, err := trust.Device(before[:2], time.Now()); err != nil {
		t.Errorf("what was issued before: %v", err)
	}
	if late := alice.Fetch(done); len(late) != 3 || string(late[1]) != string(before[1]) {
		t.Error("a certificate of before is not handed out with the issuing certificate that made it")
	}
	// A gateway that knows the first HSM's last bulletin and checkpoint goes on.
	follow()
	until(t, "a bulletin of the second HSM", func() bool {
		set := follower.Set()
		return set.Number() > held.Number() && set.Bulletin().Manifest == 2
	})
	if err := follower.Check(t.Context()); err != nil {
		t.Errorf("the gateway's copy: %v", err)
	}
	cancel()
	bob := b.client(root)
	issuedTo(t, root, bob.Enroll(b.invite("bob"), b.vendor.Card(t, enrolltest.CardConfig{})), "bob@interieur.example")
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	// The record goes on where it stood: one tree, two keys.
	state, _ := b.replay()
	m, raw := state.Manifest()
	if m.Number != 2 || string(raw) != string(b.file(manifestFile)) || m.Follows(old) != nil {
		t.Errorf("manifest %d", m.Number)
	}
	newer := openNote(t, b.checkpoint(), m)
	if _, err := open(b.checkpoint(), old); err == nil {
		t.Error("the new checkpoint is signed by the lost key")
	}
	b.grows(older, newer)
	if len(m.Issuers) != 2 || len(m.LedgerKeys(time.Now())) != 2 || len(m.LedgerKeys(time.Now().Add(91*24*time.Hour))) != 1 {
		t.Errorf("the old keys: %+v", m)
	}
	issuing, err := x509.ParseCertificate(old.Issuers[0].Certificate)
	if err != nil || !m.Issuers[1].Until.Equal(issuing.NotAfter) {
		t.Errorf("the old issuing certificate counts until %v", m.Issuers[1].Until)
	}
}

func open(text []byte, m *manifest.Manifest) (ledger.Head, error) {
	var verifiers []note.Verifier
	for _, key := range m.LedgerKeys(time.Now()) {
		v, err := ledger.Verifier(m.Origin, key)
		if err != nil {
			return ledger.Head{}, err
		}
		verifiers = append(verifiers, v)
	}
	return ledger.OpenCheckpoint(text, verifiers...)
}

func openNote(t *testing.T, text []byte, m *manifest.Manifest) ledger.Head {
	t.Helper()
	head, err := open(text, m)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// grows proves that one tree is the beginning of another.
func (b *bureau) grows(older, newer ledger.Head) {
	b.t.Helper()
	store := b.store()
	defer store.Close()
	var proof tlog.TreeProof
	err := store.View(b.t.Context(), func(tx *authority.Tx) (err error) {
		proof, err = ledger.ProveGrowth(older.N, newer.N, tx.Hashes())
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	if newer.N <= older.N || ledger.CheckGrowth(older, newer, proof) != nil {
		b.t.Errorf("from %v to %v the record does not grow", older, newer)
	}
}

// An HSM that may be in other hands: nothing of it counts any more, and the officers
// have certificates under the new key.
func TestStolenHSMIsDistrusted(t *testing.T) {
	b, k := newCourt(t)
	cards := b.holdCeremony(k)
	root := b.root()
	old, err := manifest.ParseManifest(b.file(manifestFile), root)
	if err != nil {
		t.Fatal(err)
	}
	olga, err := identity.ParseAddress("olga@" + domain)
	if err != nil {
		t.Fatal(err)
	}
	was := pemChain(t, b.file(officerFile(olga)))
	older := openNote(t, b.checkpoint(), old)
	destroyToken(t, k.Label)
	newToken(t, k, "second")
	b.amend("token="+k.Label, "token=second")
	out := b.must("manifest", "renew", "--replace", "--distrust-old")
	if !strings.Contains(out, "officers have new certificates") {
		t.Errorf("renew printed\n%s", out)
	}
	state, items := b.replay()
	m, _ := state.Manifest()
	if len(m.Issuers) != 1 || len(m.Bulletin) != 1 || len(m.LedgerKeys(time.Now().Add(2*time.Second))) != 1 {
		t.Errorf("old keys count: %+v", m)
	}
	if _, err := m.BulletinKey(old.Bulletin[0].ID(), time.Now()); err == nil {
		t.Error("bulletins of the stolen key count")
	}
	if n := len(items); n != 2+len(officers)+1+len(officers) {
		t.Errorf("%d leaves", n)
	}
	now := pemChain(t, b.file(officerFile(olga)))
	proven, err := state.Trust().Officer(now, time.Now())
	if err != nil || proven.Key != cards["olga"].ID(t) || proven.Role != identity.RoleOfficer || string(now[1]) == string(was[1]) {
		t.Errorf("olga's new certificate: %+v, %v", proven, err)
	}
	head, err := ledger.OpenCheckpoint(b.checkpoint(), verifierOf(t, m, 0))
	if err != nil {
		t.Fatalf("the checkpoint behind the change: %v", err)
	}
	b.grows(older, head)
	b.start() // the old key's checkpoints do not stop it
}

func verifierOf(t *testing.T, m *manifest.Manifest, i int) note.Verifier {
	t.Helper()
	v, err := ledger.Verifier(m.Origin, m.Ledger[i].Public)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What the root must not be asked for, beside what it may.
func TestRenewalIsRefused(t *testing.T) {
	b, k := newCourt(t)
	b.must("init")
	if out := b.must("manifest", "renew"); !strings.Contains(out, "nothing to renew") {
		t.Errorf("renew with all keys in place: %s", out)
	}
	if state, _ := b.replay(); state.Size() != 2 {
		t.Errorf("%d leaves", state.Size())
	}
	newToken(t, k, "empty")
	config := b.text("enrolld.toml")
	for name, c := range map[string]struct{ old, new, want string }{
		"root not there": {"token=safe", "token=empty", "the root key"},
		"another root":   {"[token]", "[token]\nroot-key = \"other\"", "the root key"},
		"same token":     {"token=safe", "token=" + k.Label, "token of all others"},
	} {
		b.amend(c.old, c.new)
		if _, err := b.run("manifest", "renew", "--replace"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		b.write("enrolld.toml", config)
	}
	// One key rotates, by its label: the others stay.
	b.amend("[token]", "[token]\nbulletin-key = \"valise-bulletin-2\"")
	if _, err := b.run("serve"); err == nil || !strings.Contains(err.Error(), "bulletin key") {
		t.Errorf("serve with a key that no manifest names: %v", err)
	}
	b.must("manifest", "renew", "--replace")
	state, _ := b.replay()
	m, _ := state.Manifest()
	if m.Number != 2 || len(m.Bulletin) != 2 || len(m.Issuers) != 1 || len(m.Ledger) != 1 {
		t.Errorf("manifest = %+v", m)
	}
	b.start()
}

// A renewal that was killed behind the ledger's transaction is finished by the next
// one: the files follow the ledger.
func TestInterruptedRenewal(t *testing.T) {
	b, k := newCourt(t)
	b.must("init")
	chain, first := b.file(chainFile), b.file(manifestFile)
	newToken(t, k, "second")
	b.amend("token="+k.Label, "token=second")
	b.must("manifest", "renew", "--replace")
	done := b.file(chainFile)
	for name, data := range map[string][]byte{chainFile: chain, manifestFile: first} { // as the crash left them
		b.write(filepath.Join("data", name), string(data))
	}
	if out := b.must("manifest", "renew"); !strings.Contains(out, "nothing to renew") {
		t.Errorf("renew printed\n%s", out)
	}
	if string(b.file(chainFile)) != string(done) {
		t.Error("the chain was not put right")
	}
	b.start()
}

// An authority of a version without founding records says what to do, and doing it
// loses nothing.
func TestAuthorityOfAnEarlierVersion(t *testing.T) {
	b, _ := newCourt(t)
	b.must("init")
	root := b.root()
	// Made to look like one: no founding, certificates without a time in the ledger.
	for _, name := range []string{foundingFile, manifestFile, databaseFile, databaseFile + "-wal", databaseFile + "-shm"} {
		if err := os.Remove(filepath.Join(b.dir, "data", name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	store, err := authority.Create(t.Context(), filepath.Join(b.dir, "data", databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	err = store.Append(t.Context(), func(tx *authority.Tx) error {
		for i := range 3 {
			if _, err := tx.AppendIssuance(fmt.Appendf(nil, "certificate %d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	store.Close()
	b.amend("[token]", "[token]\nbulletin-key = \"b\"\nledger-key = \"l\"")

	for _, command := range []string{"serve", "manifest show"} {
		if _, err := b.run(strings.Fields(command)...); err == nil || !strings.Contains(err.Error(), "manifest renew --config") {
			t.Errorf("%s: %v", command, err)
		}
	}
	b.must("manifest", "renew")
	state, items := b.replay()
	if len(items) != 5 || !state.Lone() || items[3].Entry.Kind != ledger.KindFounding {
		t.Errorf("%d leaves, lone: %v", len(items), state.Lone())
	}
	b.start()
	b.must("roster", "import", "people.csv")
	issuedTo(t, root, b.client(root).Enroll(b.invite("alice"), b.vendor.Card(t, enrolltest.CardConfig{})), "alice@interieur.example")
}
