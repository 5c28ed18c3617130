// SPDX-License-Identifier: Apache-2.0

package feed_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/bulletin"
	"valise/enroll/book"
	enroll "valise/enroll/feed"
	"valise/gateway/feed"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

const (
	domain   = "interieur.example"
	patience = 20 * time.Second
)

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// A token is a key that can be pulled.
type token struct {
	crypto.Signer
	dead atomic.Bool
}

func (k *token) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if k.dead.Load() {
		return nil, errors.New("no token")
	}
	return k.Signer.Sign(r, digest, o)
}

// A site is an authority with officers, and what belongs to it.
type site struct {
	*paper.Authority
	t          testing.TB
	olga, otto *paper.Officer
	alice      *identity.Device
	first      []byte // manifest
	founding   []byte
	gateway    *tls.Certificate
}

func newSite(t testing.TB) *site {
	t.Helper()
	a := paper.New(t, domain)
	s := &site{
		Authority: a, t: t, olga: a.Officer("olga", identity.RoleOfficer), otto: a.Officer("otto", identity.RoleOfficer),
		alice: a.Device("alice", paper.NewKey(t)), gateway: a.Gateway("gateway.interieur.example"),
	}
	s.first, _ = a.First()
	s.founding = a.SignRoot(a.Founding(s.olga, s.otto))
	return s
}

func (s *site) suspension() *statement.Suspension {
	return &statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: s.alice.ID}, Reason: "lost", Change: statement.NewID(),
	}
}

// A process is one running authority.
type process struct {
	s      *site
	store  *authority.Store
	book   *book.Book
	feed   *enroll.Feed
	server *httptest.Server
	bull   *token
	ledger *token
	stop   func()
}

type options struct {
	database  string
	address   string // to listen at; empty: any
	dead      bool   // the tokens
	gateways  int
	heartbeat time.Duration
	unfounded bool // someone else founds it
}

// start runs an authority on a database, and founds it if that is new.
func (s *site) start(o options) *process {
	t := s.t
	t.Helper()
	if o.database == "" {
		o.database = filepath.Join(t.TempDir(), "authority.db")
	}
	if o.heartbeat == 0 {
		o.heartbeat = time.Hour
	}
	store, err := authority.Open(context.Background(), o.database)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	p := &process{s: s, store: store, bull: &token{Signer: s.BulletinKey}, ledger: &token{Signer: s.LedgerKey}}
	p.bull.dead.Store(o.dead)
	p.ledger.dead.Store(o.dead)
	if p.book, err = book.Open(context.Background(), book.Config{Store: store, Root: s.Root, LedgerKey: p.ledger, Log: log}); err != nil {
		t.Fatal(err)
	}
	if p.size() == 0 && !o.unfounded {
		p.add(ledger.KindFounding, s.founding)
		p.add(ledger.KindManifest, s.first)
	}
	if p.feed, err = enroll.New(enroll.Config{
		Store: store, Book: p.book, Root: s.Root, Domain: domain, Signer: p.bull, Heartbeat: o.heartbeat, Gateways: o.gateways, Log: log,
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = p.book.Work(ctx) })
	work.Go(func() { _ = p.feed.Run(ctx) })
	p.server = httptest.NewUnstartedServer(p.feed.Handler())
	if o.address != "" {
		ln, err := net.Listen("tcp", o.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = p.server.Listener.Close()
		p.server.Listener = ln
	}
	p.server.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	p.server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: enroll.ClientAuth, Certificates: []tls.Certificate{*s.Server("127.0.0.1")}}
	p.server.StartTLS()
	var once sync.Once
	p.stop = func() {
		once.Do(func() {
			cancel()
			work.Wait()
			p.server.Close()
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(p.stop)
	return p
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

func (p *process) size() (n int64) {
	p.book.View(func(s *record.State) { n = s.Size() })
	return n
}

func (p *process) tryAdd(kind ledger.Kind, payload []byte) error {
	return p.book.Update(context.Background(), func(_ *authority.Tx, _ *record.State, add book.Append) error {
		_, err := add(kind, payload)
		return err
	})
}

func (p *process) add(kind ledger.Kind, payload []byte) {
	p.s.t.Helper()
	if err := p.tryAdd(kind, payload); err != nil {
		p.s.t.Fatal(err)
	}
}

// say records an officer's statement.
func (p *process) say(o *paper.Officer, b statement.Body) {
	p.s.t.Helper()
	p.add(ledger.KindStatement, o.Sign(b))
}

func (p *process) bulletin() (number uint64) {
	_ = p.store.View(context.Background(), func(tx *authority.Tx) error {
		b, err := tx.LatestBulletin()
		number = b.Number
		return err
	})
	return number
}

// A follower is a gateway's feed that runs.
type follower struct {
	*feed.Feed
	path string
	stop func()
}

func (s *site) follow(p *process, path string) *follower {
	s.t.Helper()
	url := ""
	if p != nil {
		url = p.server.URL
	}
	return s.followAs(url, path, "", s.gateway)
}

func (s *site) followAs(url, path, spool string, certificate *tls.Certificate) *follower {
	t := s.t
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "record.db")
	}
	f, err := feed.Open(context.Background(), feed.Config{
		Path: path, Root: s.Root, Domain: domain, URL: url, Spool: spool, Grace: time.Minute,
		Certificate: func() *tls.Certificate { return certificate }, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			work.Wait()
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return &follower{f, path, stop}
}

func (s *site) standing(f *follower) bulletin.Standing {
	return f.Set().Device(s.alice.ID, s.alice.Address)
}

// A suspension reaches the gateway at once, and a bulletin confirms it; another
// one, of two officers' resumption, ends it.
func TestSuspensionArrives(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	f := s.follow(p, "")
	eventually(t, "the first bulletin", func() bool { return f.Set().Number() == 1 })
	if err := f.Check(t.Context()); err != nil {
		t.Error(err)
	}
	obeyed := make(chan time.Time, 1)
	f.Apply(func(set *bulletin.Set) {
		if !set.Device(s.alice.ID, s.alice.Address).Good() {
			select {
			case obeyed <- time.Now():
			default:
			}
		}
	})
	raw := s.olga.Sign(s.suspension())
	began := time.Now()
	p.add(ledger.KindStatement, raw)
	t.Logf("obeyed %v after it was submitted", (<-obeyed).Sub(began).Round(100*time.Microsecond))
	eventually(t, "the bulletin that confirms it", func() bool {
		now := s.standing(f)
		return now.State == bulletin.Suspended && now.Confirmed && f.Set().Pending() == 0
	})
	resumption := &statement.Resumption{
		Target: statement.Target{Kind: statement.TargetDevice, Device: s.alice.ID}, Reason: "found", Change: statement.NewID(),
	}
	p.say(s.olga, resumption)
	number := p.bulletin()
	eventually(t, "the bulletin after one resumption", func() bool { return f.Set().Number() > number })
	if s.standing(f).Good() {
		t.Error("one officer resumed")
	}
	p.say(s.otto, resumption)
	eventually(t, "the bulletin after both", func() bool { return s.standing(f).Good() })
}

// With both tokens dead nothing is signed, and the suspension is obeyed all the
// same; when they are back, checkpoint and bulletin follow.
func TestSuspensionWithoutToken(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	f := s.follow(p, "")
	eventually(t, "the first bulletin", func() bool { return f.Set().Number() == 1 })
	p.bull.dead.Store(true)
	p.ledger.dead.Store(true)
	p.say(s.olga, s.suspension())
	eventually(t, "the suspension", func() bool { return !s.standing(f).Good() })
	eventually(t, "the authority's health", func() bool { return p.feed.Check(t.Context()) != nil })
	if now := s.standing(f); now.Confirmed || f.Set().Number() != 1 {
		t.Errorf("confirmed by a dead token: %+v", now)
	}
	p.bull.dead.Store(false)
	p.ledger.dead.Store(false)
	eventually(t, "the bulletin", func() bool { return s.standing(f).Confirmed && !s.standing(f).Good() })
	if err := p.feed.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// What was obeyed is obeyed after a restart, with no authority in sight, whether
// a bulletin knew it or not.
func TestRestart(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	f := s.follow(p, "")
	eventually(t, "the first bulletin", func() bool { return f.Set().Number() == 1 })
	p.bull.dead.Store(true)
	p.say(s.olga, s.suspension())
	eventually(t, "the suspension", func() bool { return !s.standing(f).Good() })
	size := p.size()
	eventually(t, "the leaf on disk", func() bool {
		leaves, err := f.Leaves(t.Context(), 0, size)
		return err == nil && int64(len(leaves)) == size
	})
	f.stop()
	p.stop()
	f = s.follow(nil, f.path)
	if now := s.standing(f); now.State != bulletin.Suspended || now.Confirmed {
		t.Errorf("after a restart: %+v", now)
	}
	if f.Set().Number() != 1 {
		t.Errorf("bulletin %d", f.Set().Number())
	}
}

// The copy proves to devices what the authority recorded.
func TestRecord(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	f := s.follow(p, "")
	raw := s.olga.Sign(s.suspension())
	p.add(ledger.KindStatement, raw)
	verifier, err := ledger.Verifier(ledger.Origin(domain), s.LedgerKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	subject := sha256.Sum256(raw)
	var proof *ledger.Inclusion
	eventually(t, "a proof", func() bool {
		proof, err = ledger.Prove(t.Context(), f, subject, 0)
		return err == nil
	})
	if _, err := proof.Check(subject, verifier); err != nil {
		t.Error(err)
	}
	if _, err := ledger.Prove(t.Context(), f, [32]byte{1}, 0); !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("something unknown: %v", err)
	}
	if raw, err := f.Manifest(t.Context()); err != nil || string(raw) != string(s.first) {
		t.Errorf("manifest %.20q, %v", raw, err)
	}
	if raw, err := f.Bulletin(t.Context()); err != nil || len(raw) == 0 {
		t.Errorf("bulletin %.20q, %v", raw, err)
	}
}

// Nobody but a gateway of this authority is told anything.
func TestStrangersRefused(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	other := paper.New(t, domain)
	key := paper.NewKey(t)
	device := s.Device("alice", key)
	for name, test := range map[string]struct {
		certificate *tls.Certificate
		status      int
	}{
		"honest control":      {s.gateway, http.StatusBadRequest}, // it says nothing, which is no Hello
		"no certificate":      {nil, http.StatusForbidden},
		"another's gateway":   {other.Gateway("gateway.interieur.example"), http.StatusForbidden},
		"a device":            {&tls.Certificate{Certificate: device.Chain, PrivateKey: key}, http.StatusForbidden},
		"the authority's own": {s.Server("127.0.0.1"), http.StatusForbidden},
	} {
		pool := x509.NewCertPool()
		pool.AddCert(s.Root)
		config := &tls.Config{RootCAs: pool}
		if test.certificate != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return test.certificate, nil }
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		for _, path := range []string{"/feed/v1/stream", "/feed/v1/restore"} {
			response, err := client.Post(p.server.URL+path, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			want := test.status
			if path == "/feed/v1/restore" && want == http.StatusBadRequest {
				want = http.StatusConflict // nothing is missing
			}
			if response.StatusCode != want {
				t.Errorf("%s, %s: %s, want %d", name, path, response.Status, want)
			}
		}
		response, err := client.Get(p.server.URL + "/manifest") // everybody's
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || string(text) != string(s.first) {
			t.Errorf("%s: manifest: %s, %v", name, response.Status, err)
		}
	}
}

// A gateway whose own key is suspended hears nothing more.
func TestSuspendedGateway(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	id, err := identity.DeviceIDOf(s.gateway.Leaf.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	p.say(s.olga, &statement.Suspension{Target: statement.Target{Kind: statement.TargetDevice, Device: id}, Reason: "stolen", Change: statement.NewID()})
	f := s.follow(p, "")
	honest := s.followAs(p.server.URL, "", "", s.Gateway("second.interieur.example"))
	eventually(t, "the other gateway", func() bool { return honest.Set().Number() > 0 })
	if f.Set().Number() != 0 {
		t.Error("a suspended gateway was told")
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
