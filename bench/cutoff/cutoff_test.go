// SPDX-License-Identifier: Apache-2.0

package cutoff

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"valise/bulletin"
	"valise/client"
	"valise/client/vault"
	"valise/enroll/book"
	enroll "valise/enroll/feed"
	"valise/gateway"
	"valise/gateway/feed"
	"valise/identity"
	"valise/internal/figure"
	store "valise/internal/store/authority"
	"valise/internal/store/relay"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

const (
	groups   = 20
	stayers  = 3
	rounds   = 40
	patience = time.Minute
)

// A world is an authority, its gateway, and devices.
type world struct {
	b       *testing.B
	paper   *paper.Authority
	olga    *paper.Officer
	otto    *paper.Officer
	book    *book.Book
	address string
}

// put hands something to the authority's record.
func (w *world) put(kind ledger.Kind, payload []byte) {
	w.b.Helper()
	err := w.book.Update(context.Background(), func(_ *store.Tx, _ *record.State, add book.Append) error {
		_, err := add(kind, payload)
		return err
	})
	if err != nil {
		w.b.Fatal(err)
	}
}

func newWorld(b *testing.B) *world {
	b.Helper()
	w := &world{b: b, paper: paper.New(b, "interieur.example")}
	w.olga = w.paper.Officer("olga", identity.RoleOfficer)
	w.otto = w.paper.Officer("otto", identity.RoleOfficer)
	log := slog.New(slog.DiscardHandler)
	db, err := store.Open(context.Background(), filepath.Join(b.TempDir(), "authority.db"))
	if err != nil {
		b.Fatal(err)
	}
	if w.book, err = book.Open(context.Background(), book.Config{Store: db, Root: w.paper.Root, LedgerKey: w.paper.LedgerKey, Log: log}); err != nil {
		b.Fatal(err)
	}
	first, _ := w.paper.First()
	w.put(ledger.KindFounding, w.paper.SignRoot(w.paper.Founding(w.olga, w.otto)))
	w.put(ledger.KindManifest, first)
	f, err := enroll.New(enroll.Config{Store: db, Book: w.book, Root: w.paper.Root, Domain: w.paper.Domain, Signer: w.paper.BulletinKey, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewUnstartedServer(f.Handler())
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: enroll.ClientAuth, Certificates: []tls.Certificate{*w.paper.Server("127.0.0.1")}}
	server.StartTLS()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = w.book.Work(ctx) })
	work.Go(func() { _ = f.Run(ctx) })
	b.Cleanup(func() {
		cancel()
		work.Wait()
		server.Close()
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	w.startGateway(server.URL, log)
	return w
}

// certify has two officers put a person on the roster and approve their device, and
// records its certificate.
func (w *world) certify(d *identity.Device) {
	b := w.b
	b.Helper()
	spki, err := x509.MarshalPKIXPublicKey(d.Leaf.PublicKey)
	if err != nil {
		b.Fatal(err)
	}
	line := &statement.Roster{Change: statement.NewID(), Address: d.Address, Name: d.Address.Local()}
	approval := &statement.Approval{Request: statement.NewID(), Template: statement.Template{
		Address: d.Address, Device: d.ID, CSRKey: spki, Role: statement.RoleDevice, Profile: "device", ProfileVersion: 1,
		Tier: identity.TierHardware, Validity: 7 * 24 * time.Hour, Evidence: [32]byte{1}, Appraisal: [32]byte{2},
	}}
	for _, body := range []statement.Body{line, approval} {
		w.put(ledger.KindStatement, w.olga.Sign(body))
		w.put(ledger.KindStatement, w.otto.Sign(body))
	}
	w.put(ledger.KindIssuance, d.Leaf.RawTBSCertificate)
}

// startGateway runs a gateway that follows the authority, with its store on a disk.
func (w *world) startGateway(url string, log *slog.Logger) {
	b := w.b
	b.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "valise-cutoff") // /tmp may be in memory, which does not sync
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	certificate := w.paper.Gateway("127.0.0.1")
	f, err := feed.Open(context.Background(), feed.Config{
		Path: filepath.Join(dir, "record.db"), Root: w.paper.Root, Domain: w.paper.Domain, URL: url,
		Certificate: func() *tls.Certificate { return certificate }, Log: log,
	})
	if err != nil {
		b.Fatal(err)
	}
	mail, err := relay.OpenJournaled(context.Background(), relay.Config{Path: filepath.Join(dir, "relay.db")})
	if err != nil {
		b.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{
		Trust: w.paper.Trust(), Domain: w.paper.Domain, Certificate: certificate, Store: mail, Dir: dir, Record: f, Standings: f.Set(),
		Tightening: bulletin.DefaultTightening, Log: log,
		Audit:  func(context.Context, string, string, ...slog.Attr) error { return nil },
		Limits: gateway.Limits{Rate: 1e6, Burst: 1e6, Commits: 1e6, CommitBurst: 1e6},
	})
	if err != nil {
		b.Fatal(err)
	}
	f.Apply(g.SetStandings)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	w.address = conn.LocalAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = g.Serve(ctx, conn) })
	work.Go(func() { _ = g.Run(ctx) })
	work.Go(func() { _ = f.Run(ctx) })
	b.Cleanup(func() {
		cancel()
		work.Wait()
		_ = conn.Close()
		if err := mail.Close(); err != nil {
			b.Error(err)
		}
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	})
}

// A device is an engine with its vault.
type device struct {
	*client.Engine
	b       *testing.B
	address identity.Address
	end     func()
}

func (w *world) device(name string) *device {
	b := w.b
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	unlock, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	w.paper.Start = time.Now().UTC().Truncate(time.Second).Add(-time.Minute) // certificates begin when they are recorded
	certified := w.paper.Device(name, key)
	w.certify(certified)
	v, err := vault.Create(context.Background(), filepath.Join(b.TempDir(), "vault.db"), certified.ID, unlock)
	if err != nil {
		b.Fatal(err)
	}
	e, err := client.New(context.Background(), client.Config{
		Address: certified.Address, Chain: certified.Chain, Signer: key, Vault: v, Trust: w.paper.Trust(), Gateway: w.address,
		RecordRoot: w.paper.Root, RecordRequired: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = e.Run(ctx)
	}()
	d := &device{Engine: e, b: b, address: certified.Address}
	d.end = sync.OnceFunc(func() {
		cancel()
		<-ended
		v.Lock()
	})
	b.Cleanup(d.end)
	return d
}

// until waits for something to be so, and returns when it was.
func (d *device) until(what string, ok func() bool) time.Time {
	d.b.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		news := d.Changed()
		if ok() {
			return time.Now()
		}
		select {
		case <-news:
		case <-deadline.C:
			d.b.Fatalf("%s: %s: not within %v; %+v", d.address, what, patience, d.State())
		}
	}
}

// rid says whether no conversation of this device has a member of this id.
func (d *device) rid(id identity.DeviceID) bool {
	for _, c := range d.Conversations() {
		if slices.ContainsFunc(c.Members, func(m client.Member) bool { return m.Device == id }) {
			return false
		}
	}
	return true
}

// in counts the conversations with a member of this id.
func (d *device) in(id identity.DeviceID) (n int) {
	for _, c := range d.Conversations() {
		if slices.ContainsFunc(c.Members, func(m client.Member) bool { return m.Device == id }) {
			n++
		}
	}
	return n
}

func (d *device) reachable(from *device) {
	d.b.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if list, err := from.Contacts(context.Background(), d.address.String()); err == nil && len(list) > 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.b.Fatalf("%s cannot be reached", d.address)
}

// BenchmarkCutOff suspends one device after another that is in 20 groups with three
// members who stay.
func BenchmarkCutOff(b *testing.B) {
	w := newWorld(b)
	ctx := context.Background()
	var stay []*device
	var with []identity.Address
	for i := range stayers {
		d := w.device(fmt.Sprintf("stayer%d", i))
		stay = append(stay, d)
		if i > 0 {
			with = append(with, d.address)
		}
	}
	first := stay[0]
	first.until("is online", func() bool { return first.State().Name == client.StateOnline })
	for _, d := range stay[1:] {
		d.reachable(first)
	}
	var ids []client.ConversationID
	for i := range groups {
		id, err := first.Start(ctx, fmt.Sprintf("Group %d", i), with)
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, d := range stay {
		d.until("is in all groups", func() bool { return d.in(stay[stayers-1].Self()) == groups })
	}
	var closed, cleared []time.Duration
	n := 0
	for b.Loop() {
		for range rounds {
			c, g := w.round(n, stay, ids)
			closed, cleared = append(closed, c), append(cleared, g)
			n++
		}
	}
	report(b, "cutoff_closed", closed)
	report(b, "cutoff_20_groups", cleared)
}

// round brings a device into all groups, suspends it, and measures.
func (w *world) round(n int, stay []*device, ids []client.ConversationID) (closed, cleared time.Duration) {
	b := w.b
	b.Helper()
	eve := w.device(fmt.Sprintf("lost%d", n))
	defer eve.end()
	eve.reachable(stay[0])
	for _, id := range ids {
		if err := stay[0].Add(context.Background(), id, eve.address); err != nil {
			b.Fatal(err)
		}
	}
	for _, d := range append(slices.Clone(stay), eve) {
		d.until("sees eve in all groups", func() bool { return d.in(eve.Self()) == groups })
	}
	raw := w.olga.Sign(&statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: eve.Self()}, Reason: "lost", Change: statement.NewID(),
	})
	began := time.Now()
	var watching sync.WaitGroup
	watching.Go(func() {
		closed = eve.until("loses its connection", func() bool { return eve.State().Name != client.StateOnline }).Sub(began)
	})
	at := make([]time.Duration, len(stay))
	for i, d := range stay {
		watching.Go(func() { at[i] = d.until("is rid of eve", func() bool { return d.rid(eve.Self()) }).Sub(began) })
	}
	w.put(ledger.KindStatement, raw)
	watching.Wait()
	return closed, slices.Max(at)
}

func report(b *testing.B, name string, list []time.Duration) {
	b.Helper()
	slices.Sort(list)
	for _, p := range []int{50, 99} {
		d := list[(len(list)*p+99)/100-1]
		if err := figure.Print(os.Stdout, fmt.Sprintf("%s_p%d", name, p), float64(d.Microseconds())/1000, "ms"); err != nil {
			b.Error(err)
		}
	}
}
