// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"valise/bulletin"
	"valise/enroll/enrolltest"
	gatewayfeed "valise/gateway/feed"
	"valise/hsm"
	"valise/internal/keys"
	"valise/internal/testenv"
	"valise/ledger"
	"valise/manifest"
)

// running runs a gateway's follower until the function that it returns is called.
func running(t *testing.T, f *gatewayfeed.Feed) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(func() { stop(); f.Close() })
	return stop
}

// visitors come all the time, each over a connection of its own, until the function is
// called that says how many came, and how many in vain.
func (b *bureau) visitors(root *x509.Certificate) func() (n, failed int64, last error) {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	hc := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	ctx, cancel := context.WithCancel(b.t.Context())
	var n, failed atomic.Int64
	var last error // read behind the end
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			res, err := hc.Get(b.url + "/acme/directory")
			n.Add(1)
			if err == nil {
				err = res.Body.Close()
			}
			if err != nil {
				failed.Add(1)
				last = err
			}
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-ended })
	b.t.Cleanup(stop)
	return func() (int64, int64, error) { stop(); return n.Load(), failed.Load(), last }
}

// tokenKey opens a key of the test's token.
func tokenKey(t *testing.T, k *testenv.Token, label string) hsm.Key {
	t.Helper()
	token, err := keys.OpenToken(t.Context(), k.URI(), keys.PINFromFile(k.PINFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	key, err := token.Key(t.Context(), label)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { key.Close() })
	return key
}

// shownKey is the key that the authority's listener shows.
func (b *bureau) shownKey(root *x509.Certificate) crypto.PublicKey {
	b.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(root)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), &tls.Config{RootCAs: pool})
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].PublicKey
}

// Issuing, bulletin, ledger and HTTPS key rotate while devices and gateways come and go.
// Nobody finds the door shut; what former keys signed counts, and what they sign now
// does not; a gateway that was away goes on where it was.
func TestKeysRotate(t *testing.T) {
	b, k := newCourt(t)
	b.must("init")
	b.must("roster", "import", "people.csv")
	b.start()
	root := b.root()
	alice, card := b.client(root), b.vendor.Card(t, enrolltest.CardConfig{})
	before := alice.Enroll(b.invite("alice"), card)
	here, away := b.followAs("here", nil), b.followAs("away", nil)
	running(t, here)
	leave := running(t, away)
	for _, f := range []*gatewayfeed.Feed{here, away} {
		until(t, "a bulletin", func() bool { return f.Set().Number() > 0 })
	}
	leave()
	first, err := manifest.ParseManifest(b.file(manifestFile), root)
	if err != nil {
		t.Fatal(err)
	}
	older, shown := openNote(t, b.checkpoint(), first), b.shownKey(root)
	visitors := b.visitors(root)

	out := b.must("rotate", "issuing", "bulletin", "ledger", "--old-until", "0s")
	if !strings.Contains(out, "manifest 2 of "+domain) || strings.Count(out, "until ") != 3 {
		t.Errorf("rotate printed\n%s", out)
	}
	b.must("rotate", "tls")
	if err := b.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the gateway has a bulletin under the new key", func() bool {
		held := here.Set().Bulletin()
		return held.Manifest == 2
	})
	until(t, "the listener shows the new key", func() bool { return !same(b.shownKey(root), shown) })
	after := renewDevice(t, alice, card)
	issuedTo(t, root, after, "alice@interieur.example")
	if string(after[1]) == string(before[1]) {
		t.Error("renewed by the former key")
	}
	issuedTo(t, root, before, "alice@interieur.example") // to its end
	issuedTo(t, root, b.client(root).Enroll(b.invite("bob"), b.vendor.Card(t, enrolltest.CardConfig{})), "bob@interieur.example")
	second, err := manifest.ParseManifest(b.file(manifestFile), root)
	if err != nil || second.Number != 2 || second.Follows(first) != nil {
		t.Fatalf("manifest %+v, %v", second, err)
	}

	running(t, away)
	until(t, "the gateway that was away has a bulletin under the new key", func() bool { return away.Set().Bulletin().Manifest == 2 })
	for _, f := range []*gatewayfeed.Feed{here, away} {
		if err := f.Check(t.Context()); err != nil {
			t.Errorf("a gateway's copy: %v", err)
		}
	}
	if n, failed, err := visitors(); n < 3 || failed > 0 {
		t.Errorf("of %d visitors %d found the door shut: %v", n, failed, err)
	}
	b.grows(older, openNote(t, b.checkpoint(), second))
	b.formerKeys(k, first, second, before, after)
	if code, body := b.health(); code != http.StatusOK || !strings.Contains(body, `"keys":"ok"`) {
		t.Errorf("%d %s", code, body)
	}
}

// formerKeys: what they sign now is refused, as what the new ones sign is not.
func (b *bureau) formerKeys(k *testenv.Token, first, second *manifest.Manifest, before, after [][]byte) {
	t := b.t
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	for label, want := range map[string]bool{"valise-bulletin": false, "valise-bulletin-2": true} {
		raw, err := bulletin.Sign(t.Context(), tokenKey(t, k, label), &bulletin.Bulletin{Number: 9, Time: now, Next: now.Add(time.Minute), Manifest: 2, LedgerSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bulletin.Verify(raw, second); (err == nil) != want {
			t.Errorf("a bulletin under %s: %v", label, err)
		}
	}
	for label, want := range map[string]bool{"valise-ledger": false, "valise-ledger-2": true} {
		note, err := ledger.SignCheckpoint(t.Context(), first.Origin, ledger.Head{N: 1, Hash: [32]byte{1}}, tokenKey(t, k, label))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(note, second); (err == nil) != want {
			t.Errorf("a checkpoint under %s: %v", label, err)
		}
	}
	for _, c := range []struct {
		chain [][]byte
		at    time.Time
		want  bool
	}{{before, time.Time{}, true}, {before, now, false}, {after, now, true}} {
		leaf, err := x509.ParseCertificate(c.chain[0])
		if err != nil {
			t.Fatal(err)
		}
		if c.at.IsZero() {
			c.at = leaf.NotBefore
		}
		named, err := second.Certificates(c.at)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, cert := range named {
			found = found || string(cert.Raw) == string(c.chain[1])
		}
		if found != c.want {
			t.Errorf("a certificate of %v by the key of %s is named: %v", c.at, leaf.NotBefore, found)
		}
	}
}

// Wherever a rotation was cut short, the next one finishes it, and so does the daemon.
func TestRotationIsFinished(t *testing.T) {
	b, k := newCourt(t)
	b.must("init")
	chain, first := b.file(chainFile), b.file(manifestFile)
	// Behind the making of the key: it is taken.
	token, err := keys.OpenToken(t.Context(), k.URI(), keys.PINFromFile(k.PINFile))
	if err != nil {
		t.Fatal(err)
	}
	left, err := token.Generate(t.Context(), "valise-issuer-2", hsm.GenerateOptions{Algorithm: hsm.P256, Name: "valise-issuer-2"})
	if err != nil {
		t.Fatal(err)
	}
	b.must("rotate", "issuing")
	second, err := manifest.ParseManifest(b.file(manifestFile), b.root())
	if err != nil || !inUse(second, useIssuing)(left.Public()) {
		t.Errorf("the key that was left is not used: %+v, %v", second, err)
	}
	if _, err := token.Key(t.Context(), "valise-issuer-3"); err == nil {
		t.Error("a third key was made")
	}
	token.Close()
	// Behind the ledger's transaction: the files are as before.
	older := func() {
		for name, data := range map[string][]byte{chainFile: chain, manifestFile: first} {
			b.write(filepath.Join("data", name), string(data))
		}
	}
	older()
	if out := b.must("rotate", "issuing"); !strings.Contains(out, "recorded before") {
		t.Errorf("rotate printed\n%s", out)
	}
	if got, err := manifest.ParseManifest(b.file(manifestFile), b.root()); err != nil || got.Digest() != second.Digest() {
		t.Errorf("manifest %+v, %v", got, err)
	}
	older()
	b.start()
	if string(b.file(manifestFile)) == string(first) || string(b.file(chainFile)) == string(chain) {
		t.Error("the daemon did not write the files")
	}
}

// Keys that were replaced sign no more once that is over, and what they signed counts.
func TestFormerKeysRetire(t *testing.T) {
	b, _ := newCourt(t)
	b.must("init")
	if out := b.must("manifest", "retire"); !strings.Contains(out, "nothing to renew") {
		t.Errorf("retire without former keys printed\n%s", out)
	}
	b.must("rotate", "issuing", "bulletin", "ledger")
	root := b.root()
	parse := func() *manifest.Manifest {
		m, err := manifest.ParseManifest(b.file(manifestFile), root)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	later := time.Now().Add(time.Hour)
	rotated := parse()
	former := rotated.Bulletin[1].ID()
	if _, err := rotated.BulletinKey(former, later); err != nil || len(rotated.LedgerKeys(later)) != 2 || len(rotated.Issuers) != 2 {
		t.Errorf("control: within the day the former keys count: %v", err)
	}
	b.must("manifest", "retire")
	m := parse()
	if _, err := m.BulletinKey(former, later); err == nil || len(m.LedgerKeys(later)) != 1 {
		t.Error("former keys sign on")
	}
	if named, err := m.Certificates(later); err != nil || len(named) != 1 {
		t.Errorf("%d issuing certificates, %v", len(named), err)
	}
	if named, err := m.Certificates(rotated.Time.Add(-time.Minute)); err != nil || len(named) != 2 {
		t.Errorf("what the former key certified: %d issuing certificates, %v", len(named), err)
	}
	// What has retired stands there further on, above what it certified.
	until(t, "the second of its end is over", func() bool { return time.Now().After(m.Issuers[1].Until.Add(time.Second)) })
	b.must("rotate", "issuing")
	if last := parse(); len(last.Issuers) != 3 || last.Number != 4 {
		t.Errorf("manifest %d names %d issuing certificates", last.Number, len(last.Issuers))
	}
	if !same(rotated.Ledger[0].Public, parse().Ledger[0].Public) {
		t.Error("the ledger's key rotated too")
	}
}
