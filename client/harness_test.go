// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"valise/bulletin"
	"valise/client/vault"
	"valise/gateway"
	"valise/gateway/mailbox"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/store/relay"
)

const (
	patience = 20 * time.Second
	domain   = "interieur.example"
)

// world is an authority with software keys and a real gateway on loopback.
type world struct {
	t         testing.TB
	root      *x509.Certificate
	issuer    *x509.Certificate
	issuerKey *ecdsa.PrivateKey
	rootKey   *ecdsa.PrivateKey
	cert      *tls.Certificate
	dir       string
	address   string
	noUDP     bool // it passes nowhere
	noTCP     bool
	through   string        // where devices dial; empty: the gateway itself
	believe   time.Duration // for how long devices believe that UDP is closed; 0: as they do

	gateway *gateway.Gateway

	mu      sync.Mutex
	reports []string // reasons that devices reported

	record   gateway.Record // served by the gateway; nil: none
	demands  bool           // devices demand it
	optional bool           // devices demand it once they have seen it
	issued   func(d *device, leaf *x509.Certificate)
	patience time.Duration // of devices with the record; 0: theirs

	tighten bulletin.Tightening // of devices

	quota mailbox.Quota // of the gateway's mailboxes

	rules   *rules.State // the gateway's policy bundle
	cleared func(local string) (*identity.Clearance, identity.Tier)

	stop func()
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return n.Add(n, big.NewInt(1))
}

func issue(t testing.TB, template *x509.Certificate, err error, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	profile := func(key *ecdsa.PrivateKey) identity.CAProfile {
		return identity.CAProfile{
			Domain: domain, PublicKey: key.Public(), Serial: serial(),
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		}
	}
	w.rootKey = newKey(t, elliptic.P256())
	rootKey := w.rootKey
	w.issuerKey = newKey(t, elliptic.P256())
	template, err := identity.RootTemplate(profile(rootKey))
	w.root = issue(t, template, err, nil, rootKey.Public(), rootKey)
	template, err = identity.IssuerTemplate(profile(w.issuerKey))
	w.issuer = issue(t, template, err, w.root, w.issuerKey.Public(), rootKey)

	key := newKey(t, elliptic.P256())
	gp := identity.GatewayProfile{
		Name: "127.0.0.1", PublicKey: key.Public(), Tier: identity.TierWitnessed, EvidenceHash: [32]byte{3}, PolicyHash: [32]byte{2},
		Serial: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
	}
	template, err = gp.Template()
	leaf := issue(t, template, err, w.issuer, key.Public(), w.issuerKey)
	w.cert = &tls.Certificate{Certificate: [][]byte{leaf.Raw, w.issuer.Raw}, PrivateKey: key}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) trust() *identity.Trust {
	return identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{w.root}})
}

// start runs the gateway, on the port that it had before if there was one.
func (w *world) start() {
	t := w.t
	t.Helper()
	store, err := relay.Open(context.Background(), relay.Config{Path: filepath.Join(w.dir, "relay.db"), Quota: w.quota})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{
		Trust: w.trust(), Domain: domain, Certificate: w.cert, Store: store, Dir: w.dir,
		Record: w.record, Rules: w.rules, Audit: w.audit, Log: slog.New(slog.DiscardHandler), Limits: gateway.Limits{Rate: 1e6, Burst: 1e6},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.gateway = g
	conn, listener := w.listen()
	serving, endServing := context.WithCancel(context.Background())
	running, endRunning := context.WithCancel(context.Background())
	var servers, runners sync.WaitGroup
	if !w.noUDP {
		servers.Go(func() { _ = g.Serve(serving, conn) })
	}
	if !w.noTCP {
		servers.Go(func() { _ = g.ServeTCP(serving, listener) })
	}
	runners.Go(func() { _ = g.Run(running) })
	w.stop = sync.OnceFunc(func() {
		endServing()
		servers.Wait()
		endRunning()
		runners.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		_, _ = conn.Close(), listener.Close()
	})
}

// listen takes one port for both transports. With noUDP the socket stays deaf, as
// behind a firewall that drops UDP.
func (w *world) listen() (*net.UDPConn, *net.TCPListener) {
	w.t.Helper()
	at := w.address
	if at == "" {
		at = "127.0.0.1:0"
	}
	for range 100 {
		udp, _ := net.ResolveUDPAddr("udp", at)
		conn, err := net.ListenUDP("udp", udp)
		if err != nil {
			w.t.Fatal(err)
		}
		tcp, _ := net.ResolveTCPAddr("tcp", conn.LocalAddr().String())
		listener, err := net.ListenTCP("tcp", tcp)
		if err == nil {
			if w.noTCP {
				_ = listener.Close()
			}
			w.address = conn.LocalAddr().String()
			return conn, listener
		}
		_ = conn.Close() // the number is taken there
	}
	w.t.Fatal("no port is free for both transports")
	return nil, nil
}

func (w *world) audit(_ context.Context, event, reason string, attrs ...slog.Attr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, event+"/"+reason)
	for _, a := range attrs {
		if a.Key == "said" || a.Key == "reported" || a.Key == "detail" {
			w.reports = append(w.reports, event+"/"+a.Value.String())
		}
	}
	return nil
}

// sqlite changes the stopped gateway's store, as an intruder there could.
func (w *world) sqlite(query string, args ...any) int64 {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "relay.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Exec(query, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	n, _ := r.RowsAffected()
	return n
}

// device is one engine with software keys in the place of a card's.
type device struct {
	*Engine
	t       testing.TB
	w       *world
	address identity.Address
	key     *ecdsa.PrivateKey
	unlock  ecdh.KeyExchanger
	chain   [][]byte
	dir     string
	vault   *vault.Vault
	crash   func(point string) error
	clock   func() time.Time // nil: the machine's

	careless bool // does not look at the record

	cancel context.CancelFunc
	ended  chan error
}

var errKilled = errors.New("killed by the test")

func (w *world) device(local string) *device { return w.deviceOn(local, elliptic.P256()) }

// deviceWith makes a device with a clock of the test.
func (w *world) deviceWith(local string, now func() time.Time) *device {
	return w.deviceBy(local, elliptic.P256(), now)
}

func (w *world) deviceOn(local string, curve elliptic.Curve) *device {
	return w.deviceBy(local, curve, nil)
}

func (w *world) deviceBy(local string, curve elliptic.Curve, now func() time.Time) *device {
	t := w.t
	t.Helper()
	address, err := identity.ParseAddress(local + "@" + domain)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, w: w, address: address, key: newKey(t, curve), dir: t.TempDir(), clock: now}
	if d.unlock, err = ecdh.P256().GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	p := identity.DeviceProfile{
		Address: address, PublicKey: d.key.Public(), Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: serial(), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}
	if w.cleared != nil {
		p.Clearance, p.Tier = w.cleared(local)
	}
	template, err := p.Template()
	leaf := issue(t, template, err, w.issuer, d.key.Public(), w.issuerKey)
	d.chain = [][]byte{leaf.Raw, w.issuer.Raw}
	if w.issued != nil {
		w.issued(d, leaf)
	}
	d.start()
	t.Cleanup(d.kill)
	return d
}

func (d *device) path() string { return filepath.Join(d.dir, "vault.db") }

// start opens the vault and runs an engine on it.
func (d *device) start() {
	t := d.t
	t.Helper()
	ctx := context.Background()
	id, _ := identity.DeviceIDOf(d.key.Public())
	var err error
	if _, statErr := os.Stat(d.path()); statErr == nil {
		d.vault, err = vault.Open(ctx, d.path(), id, d.unlock)
	} else {
		d.vault, err = vault.Create(ctx, d.path(), id, d.unlock)
	}
	if err != nil {
		t.Fatal(err)
	}
	var log *slog.Logger
	if os.Getenv("CLIENT_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("device", d.address.Local()+"/"+id.String()[:4])
	}
	cfg := Config{Address: d.address, Chain: d.chain, Signer: d.key, Vault: d.vault, Trust: d.w.trust(), Gateway: cmp.Or(d.w.through, d.w.address), Agent: "test", Log: log, Now: d.clock, Tightening: d.w.tighten}
	if (d.w.demands || d.w.optional) && !d.careless {
		cfg.RecordRoot, cfg.RecordRequired = d.w.root, d.w.demands
	}
	if d.Engine, err = New(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	d.Engine.ways.least = d.w.believe
	if d.w.patience > 0 {
		d.Engine.patience = d.w.patience
	}
	crash := d.crash
	d.Engine.crash.Store(&crash)
	run, cancel := context.WithCancel(ctx)
	d.cancel, d.ended = cancel, make(chan error, 1)
	engine, ended := d.Engine, d.ended
	go func() { ended <- engine.Run(run) }()
}

// kill ends the engine at once; nothing is tidied up but the file handles.
func (d *device) kill() {
	if d.ended == nil {
		return
	}
	d.cancel()
	<-d.ended
	d.ended = nil
	d.vault.Lock()
}

// restart is a kill and a start.
func (d *device) restart() { d.kill(); d.start() }

// until polls on the engine's changes.
func (d *device) until(what string, ok func() bool) {
	d.t.Helper()
	deadline := time.After(patience)
	for {
		news := d.Changed()
		if ok() {
			return
		}
		select {
		case <-news:
		case <-time.After(200 * time.Millisecond):
		case <-deadline:
			d.t.Fatalf("%s: %s: not within %v; state %+v; events %+v", d.address, what, patience, d.State(), d.all())
		}
	}
}

// reachable waits until others can add the device.
func (d *device) reachable() *device {
	d.t.Helper()
	d.until("publishes key packages", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.link != nil && d.stock > 0 && d.slot == nil
	})
	return d
}

func (d *device) all() []Event {
	d.t.Helper()
	var all []Event
	after := ""
	for {
		some, next, err := d.Events(context.Background(), Query{After: after})
		if err != nil {
			d.t.Fatal(err)
		}
		all = append(all, some...)
		if next == after || len(some) == 0 {
			return all
		}
		after = next
	}
}

// texts are the texts received, in order.
func (d *device) texts() []string {
	var out []string
	for _, ev := range d.all() {
		if ev.Kind == EventMessage && !ev.Outgoing {
			out = append(out, ev.Text)
		}
	}
	return out
}

func count(list []string, want string) int {
	n := 0
	for _, s := range list {
		if s == want {
			n++
		}
	}
	return n
}

// gets waits for texts and checks that each came exactly once.
func (d *device) gets(want ...string) {
	d.t.Helper()
	d.until(fmt.Sprintf("gets %d texts", len(want)), func() bool {
		have := d.texts()
		for _, w := range want {
			if count(have, w) == 0 {
				return false
			}
		}
		return true
	})
	have := d.texts()
	for _, w := range want {
		if n := count(have, w); n != 1 {
			d.t.Fatalf("%s got %q %d times: %q", d.address, w, n, have)
		}
	}
}

func (d *device) with(t testing.TB, who ...*device) ConversationID {
	t.Helper()
	var list []identity.Address
	for _, w := range who {
		list = append(list, w.address)
	}
	id, err := d.Direct(context.Background(), list...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// says sends and waits for the gateway's acknowledgement.
func (d *device) says(conv ConversationID, text string) MessageID {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := d.Send(ctx, Draft{Conversation: conv, Text: text})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.Wait(ctx, id); err != nil {
		d.t.Fatalf("%s says %q: %v; state %+v", d.address, text, err, d.State())
	}
	return id
}

// setCrash changes what happens at the engine's crash points while it runs.
func (d *device) setCrash(f func(point string) error) {
	d.Engine.crash.Store(&f)
	d.crash = nil
}

// quiet waits until every mailbox is empty but those of devices that are away: all that
// was delivered is acknowledged.
func (w *world) quiet(away ...*device) {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "relay.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	deadline := time.Now().Add(patience)
	for {
		n := -1
		if err := db.QueryRow("SELECT count(DISTINCT device) FROM mailbox").Scan(&n); err == nil && n <= len(away) {
			return
		} else if time.Now().After(deadline) {
			w.t.Fatalf("%d devices have not acknowledged all, %v", n, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
