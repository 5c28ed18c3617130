// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"valise/bulletin"
	"valise/enroll/book"
	enroll "valise/enroll/feed"
	"valise/gateway/feed"
	"valise/identity"
	store "valise/internal/store/authority"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/record"
	"valise/statement"
	"valise/wire"
)

// startAuthority runs the authority's side of the feed over TLS and returns its
// record and URL.
func startAuthority(t testing.TB, a *paper.Authority, officers ...*paper.Officer) (*book.Book, string) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	db, err := store.Open(context.Background(), filepath.Join(t.TempDir(), "authority.db"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := book.Open(context.Background(), book.Config{Store: db, Root: a.Root, LedgerKey: a.LedgerKey, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	manifest, _ := a.First()
	put(t, b, ledger.KindFounding, a.SignRoot(a.Founding(officers...)))
	put(t, b, ledger.KindManifest, manifest)
	f, err := enroll.New(enroll.Config{Store: db, Book: b, Root: a.Root, Domain: a.Domain, Signer: a.BulletinKey, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = b.Work(ctx) })
	work.Go(func() { _ = f.Run(ctx) })
	server := httptest.NewUnstartedServer(f.Handler())
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: enroll.ClientAuth, Certificates: []tls.Certificate{*a.Server("127.0.0.1")}}
	server.StartTLS()
	t.Cleanup(func() {
		cancel()
		work.Wait()
		server.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, server.URL
}

func put(t testing.TB, b *book.Book, kind ledger.Kind, payload []byte) {
	t.Helper()
	err := b.Update(context.Background(), func(_ *store.Tx, _ *record.State, add book.Append) error {
		_, err := add(kind, payload)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An officer suspends a device at the authority: its connection at the gateway
// ends, it does not come back, and a device that stays good notices nothing. The
// whole way is real: record, TLS stream, copy, QUIC.
func TestCutOff(t *testing.T) { overBoth(t, testCutOff) }

func testCutOff(t *testing.T, by network) {
	a := paper.New(t, "interieur.example")
	olga, otto := a.Officer("olga", identity.RoleOfficer), a.Officer("otto", identity.RoleOfficer)
	b, url := startAuthority(t, a, olga, otto)
	gw := startGateway(t, gatewayOptions{network: by, authority: &authority{domain: a.Domain, root: a.Root, issuer: a.Issuer, issuerKey: a.IssuerKey}})
	certificate := a.Gateway("127.0.0.1")
	f, err := feed.Open(t.Context(), feed.Config{
		Path: filepath.Join(gw.dir, "record.db"), Root: a.Root, Domain: a.Domain, URL: url,
		Certificate: func() *tls.Certificate { return certificate }, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	followed := make(chan struct{}, 1)
	f.Apply(func(set *bulletin.Set) {
		gw.SetStandings(set)
		if set.Number() > 0 {
			select {
			case followed <- struct{}{}:
			default:
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-followed:
	case <-time.After(patience):
		t.Fatal("no bulletin came")
	}
	eve, honest := newDevice(t, gw, "eve"), newDevice(t, gw, "honest")
	eve.connect(true, 0)
	honest.connect(true, 0)
	raw := olga.Sign(&statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: eve.id}, Reason: "lost", Change: statement.NewID(),
	})
	began := time.Now()
	put(t, b, ledger.KindStatement, raw)
	if code := eve.link.closed(t); code != wire.CloseNotAdmitted {
		t.Errorf("closed with %d", code)
	}
	t.Logf("from the submission of the statement to the closed connection: %v", time.Since(began).Round(100*time.Microsecond))
	if _, err := eve.tryConnect(false, 0); err == nil {
		t.Error("a suspended device got in")
	}
	gw.audit.want(t, eventRefusedConnection, "device_suspended")
	if code := honest.code(&wire.Ping{}); code != wire.OK {
		t.Errorf("ping: %v", code)
	}
}
