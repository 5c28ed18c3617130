// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"valise/bulletin"
	"valise/enroll"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/internal/testenv"
	"valise/ledger"
	"valise/manifest"
)

// A siege enrolls people through daemons that are killed at random moments.
type siege struct {
	t        *testing.T
	daemons  []*bureau
	database string
	root     *x509.Certificate
	http     *http.Client
	done     atomic.Int64
	failed   atomic.Int64 // attempts that a kill cut off

	mu     sync.Mutex
	chains map[string][][]byte // what clients were given: order to leaves, guarded by mu
}

// newSiege founds an authority on a database and starts as many daemons as wanted, which
// all answer under one URL.
func newSiege(t *testing.T, database string, daemons int) *siege {
	t.Helper()
	soft := testenv.SoftHSM(t)
	first := newBureau(t, soft, soft.PINFile)
	if database == "" {
		database = filepath.Join(first.dir, "data", databaseFile)
	}
	first.configure("data = \"data\"\n", fmt.Sprintf("data = \"data\"\ndatabase = %q\n", database))
	first.must("init")
	s := &siege{t: t, daemons: []*bureau{first}, database: database, root: first.root(), chains: make(map[string][][]byte)}
	for range daemons - 1 {
		s.daemons = append(s.daemons, first.twin())
	}
	for _, b := range s.daemons {
		b.start()
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.root)
	s.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: s.dial, DisableKeepAlives: true,
	}}
	return s
}

// configure replaces a part of the configuration.
func (b *bureau) configure(old, text string) {
	b.t.Helper()
	data, err := os.ReadFile(b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		b.t.Fatalf("the configuration lacks %q", old)
	}
	b.write("enrolld.toml", strings.Replace(string(data), old, text, 1))
}

// twin is another daemon of the same authority: the same URL, token and database,
// another address and folder.
func (b *bureau) twin() *bureau {
	b.t.Helper()
	twin := *b
	twin.dir, twin.admin, twin.listen = b.t.TempDir(), free(b.t), free(b.t)
	twin.config = filepath.Join(twin.dir, "enrolld.toml")
	if err := os.Mkdir(filepath.Join(twin.dir, "data"), 0o700); err != nil {
		b.t.Fatal(err)
	}
	names, err := fs.Glob(os.DirFS(b.dir), "data/*")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, name := range append(names, "enrolld.toml", "vendor.pem") {
		data, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil {
			b.t.Fatal(err)
		}
		twin.write(name, string(data))
	}
	twin.configure(fmt.Sprintf("listen = %q", strings.TrimPrefix(b.url, "https://")), fmt.Sprintf("listen = %q", twin.listen))
	twin.configure(fmt.Sprintf("admin = %q", b.admin), fmt.Sprintf("admin = %q", twin.admin))
	return &twin
}

func (b *bureau) address() string {
	if b.listen != "" {
		return b.listen
	}
	return strings.TrimPrefix(b.url, "https://")
}

// dial is what a balancer in front of the daemons would do.
func (s *siege) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var d net.Dialer
	var err error
	for _, i := range rand.Perm(len(s.daemons)) {
		var conn net.Conn
		if conn, err = d.DialContext(ctx, network, s.daemons[i].address()); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// patient turns what would end a test into a failed attempt.
type patient struct{ testing.TB }

type failure string

func (patient) Fatal(args ...any)                 { panic(failure(fmt.Sprint(args...))) }
func (patient) Fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// insist repeats one step of a client until it succeeds.
func (s *siege) insist(ctx context.Context, step func() bool) bool {
	for ctx.Err() == nil {
		if s.attempt(step) {
			return true
		}
		s.failed.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(30 * time.Millisecond):
		}
	}
	return false
}

func (s *siege) attempt(step func() bool) (ok bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			ok = false
		default:
			panic(r)
		}
	}()
	return step()
}

// enroll is one official's day: everything that was answered is taken for granted from
// then on, everything else is asked again.
func (s *siege) enroll(ctx context.Context, inv identity.Invitation, card *enrolltest.Card) {
	c := enrolltest.NewClient(patient{s.t}, s.http, inv.URL)
	registered := s.insist(ctx, func() bool {
		r := c.Register(inv)
		if r.Reason == "invitation_used" {
			s.t.Errorf("%s: the invitation was used up without an account", inv.Address)
		}
		return r.Status == http.StatusCreated || r.Status == http.StatusOK
	})
	csr := enrolltest.CSR(s.t, card.Key)
	var o *enrolltest.Order
	_ = registered && s.insist(ctx, func() bool {
		if o == nil || o.Status == "invalid" {
			fresh, r := c.NewOrder(card.ID(s.t).String())
			if fresh == nil {
				if r.Reason == "unknown_account" {
					s.t.Errorf("%s: the account that was acknowledged is gone", inv.Address)
				}
				return false
			}
			o = fresh
		}
		s.step(c, o, card, csr)
		return o.Status == "valid" && s.fetch(c, o)
	})
	s.done.Add(1)
}

// step does what the order's state asks for.
func (s *siege) step(c *enrolltest.Client, o *enrolltest.Order, card *enrolltest.Card, csr []byte) {
	r := c.Post(o.URL, nil)
	if r.Status == http.StatusNotFound {
		s.t.Errorf("an order that was acknowledged is gone: %s", o.URL)
	}
	if r.Status != http.StatusOK {
		return
	}
	r.Into(s.t, o)
	if o.Status == "pending" {
		if ch, _ := c.Attest(o, card.Answer(s.t, c.KeyAuthorization(o))); ch != nil && ch.Status == "valid" {
			o.Status = "ready"
		}
	}
	if o.Status == "ready" {
		if done, _ := c.Finish(o, csr); done != nil {
			o.Status, o.Certificate = done.Status, done.Certificate
		}
	}
}

// fetch takes the certificate, twice, as whoever is cut off after the first time does.
func (s *siege) fetch(c *enrolltest.Client, o *enrolltest.Order) bool {
	for range 2 {
		chain := c.Fetch(o)
		if len(chain) != 3 {
			return false
		}
		s.mu.Lock()
		s.chains[o.URL] = append(s.chains[o.URL], chain[0])
		s.mu.Unlock()
	}
	return true
}

// run lets workers enroll people and calls strike so many times meanwhile.
func (s *siege) run(people, workers, strikes int, strike func()) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	csv := "address,name,unit,clearance\n"
	for i := range people {
		csv += fmt.Sprintf("p%d@%s,P,,\n", i, domain)
	}
	first := s.daemons[0]
	first.write("people.csv", csv)
	first.must("roster", "import", "people.csv")
	store, err := authority.OpenExisting(ctx, s.database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	inviter := enroll.Inviter{Store: store, URL: first.url, Root: s.root, Event: silent, Now: time.Now}
	jobs := make(chan func(), people)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for job := range jobs {
				job()
			}
		})
	}
	for i := range people {
		address, err := identity.ParseAddress(fmt.Sprintf("p%d@%s", i, domain))
		if err != nil {
			s.t.Fatal(err)
		}
		// An invitation is an officer's business, who asks again until it is made.
		var inv identity.Invitation
		made := s.insist(ctx, func() bool { inv, err = inviter.Invite(ctx, address); return err == nil })
		if !made {
			s.t.Fatal(err)
		}
		card := first.vendor.Card(s.t, enrolltest.CardConfig{})
		jobs <- func() { s.enroll(ctx, inv, card) }
		if (i+1)%(people/strikes) == 0 {
			select { // at a random moment
			case <-ctx.Done():
			case <-time.After(time.Duration(20+rand.IntN(300)) * time.Millisecond):
				strike()
			}
		}
	}
	close(jobs)
	wg.Wait()
	s.t.Logf("%d enrolled under %d strikes; %d attempts were repeated", s.done.Load(), strikes, s.failed.Load())
	if ctx.Err() != nil {
		s.t.Fatal("not everybody was enrolled in time")
	}
	if s.failed.Load() == 0 {
		s.t.Error("nothing was disturbed: the test shows nothing")
	}
	s.settle(ctx, store)
	s.verify(store, people)
}

func silent(context.Context, string, ...slog.Attr) error { return nil }

// settle waits until the daemons have finished what crashes have left.
func (s *siege) settle(ctx context.Context, store *authority.Store) {
	until(s.t, "everything recorded is signed", func() bool {
		open := 0
		err := store.View(ctx, func(tx *authority.Tx) error {
			all, err := tx.Issuances()
			open = 0
			for _, i := range all {
				if !i.Done() {
					open++
				}
			}
			return err
		})
		return err == nil && open == 0
	})
	for _, b := range s.daemons {
		_ = b.stop(syscall.SIGTERM)
	}
}

// memory is a tree's hash storage.
type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = m[index]
	}
	return out, nil
}

// verify looks at the database from outside: one certificate for an order and one leaf for
// a certificate, one tree, and everything that a client was given is there.
func (s *siege) verify(store *authority.Store, people int) {
	s.t.Helper()
	var issued []authority.Issuance
	var items []ledger.Item
	err := store.View(s.t.Context(), func(tx *authority.Tx) (err error) {
		if issued, err = tx.Issuances(); err != nil {
			return err
		}
		if items, err = tx.Items(0, 1<<20); err != nil {
			return err
		}
		return s.checkTree(tx, items)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	leaves := make(map[[32]byte]int64)
	for _, item := range items {
		if other, ok := leaves[item.Entry.Subject]; ok {
			s.t.Errorf("leaves %d and %d are of one certificate", other, item.Index)
		}
		leaves[item.Entry.Subject] = item.Index
	}
	orders := make(map[string]authority.Issuance)
	for _, i := range issued {
		if int64(len(items)) <= i.Leaf || !items[i.Leaf].Entry.Records(i.TBS) || !bytes.Equal(items[i.Leaf].Payload, i.TBS) {
			s.t.Errorf("%s: leaf %d is not its own", i.Ref, i.Leaf)
		}
		cert, err := x509.ParseCertificate(i.Certificate)
		if err != nil || !bytes.Equal(cert.RawTBSCertificate, i.TBS) {
			s.t.Errorf("%s: the certificate is not what was recorded: %v", i.Ref, err)
		}
		if id, ok := strings.CutPrefix(i.Ref, "order:"); ok {
			orders[id] = i
		}
	}
	if len(s.chains) < people {
		s.t.Errorf("%d orders for %d people", len(s.chains), people)
	}
	for url, certs := range s.chains {
		i, ok := orders[filepath.Base(url)]
		if !ok {
			s.t.Errorf("%s: the certificate that was handed out is lost", url)
		}
		for _, der := range certs {
			if !bytes.Equal(der, i.Certificate) {
				s.t.Errorf("%s: two certificates for one order", url)
			}
		}
	}
}

// checkTree builds the tree again from its entries, and compares.
func (s *siege) checkTree(tx *authority.Tx, items []ledger.Item) error {
	var tree memory
	for _, item := range items {
		hashes, err := ledger.Append(item.Index, item.Entry.Leaf(), tree)
		if err != nil {
			return err
		}
		tree = append(tree, hashes...)
	}
	want, err := ledger.HeadOf(int64(len(items)), tree)
	if err != nil {
		return err
	}
	head, err := tx.LedgerHead()
	if err != nil {
		return err
	}
	if head != want {
		s.t.Errorf("the tree is %v, its leaves make %v", head, want)
	}
	for size := int64(0); ; { // no checkpoint was ever signed of another tree
		c, err := tx.CheckpointCovering(size)
		if errors.Is(err, authority.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		_, signed, err := ledger.ParseCheckpoint(c.Note)
		if err != nil || c.Size > head.N {
			return fmt.Errorf("checkpoint of %d: %w", c.Size, err)
		}
		if was, err := ledger.HeadOf(c.Size, tree); err != nil || was != signed {
			s.t.Errorf("the checkpoint of %d leaves is of a fork: %v", c.Size, err)
		}
		size = c.Size
	}
	if err := s.checkBulletins(tx, tree); err != nil {
		return err
	}
	for _, item := range items {
		proof, err := tx.ProveInclusion(item.Index)
		if err == nil {
			err = ledger.CheckInclusion(head, item.Index, item.Entry.Leaf(), proof)
		}
		if err != nil {
			s.t.Errorf("leaf %d: %v", item.Index, err)
		}
	}
	return nil
}

// checkBulletins verifies the bulletins that are there: each is signed, under its own
// number, and names the one tree.
func (s *siege) checkBulletins(tx *authority.Tx, tree memory) error {
	raw, err := os.ReadFile(filepath.Join(s.daemons[0].dir, "data", manifestFile))
	if err != nil {
		return err
	}
	m, err := manifest.ParseManifest(raw, s.root)
	if err != nil {
		return err
	}
	latest, err := tx.LatestBulletin()
	if err != nil {
		return fmt.Errorf("the newest bulletin: %w", err)
	}
	for number := uint64(1); number <= latest.Number; number++ {
		signed, err := tx.Bulletin(number)
		if errors.Is(err, authority.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		b, err := bulletin.Verify(signed.JWS, m)
		if err != nil || b.Number != number {
			s.t.Errorf("bulletin %d: %+v, %v", number, b, err)
			continue
		}
		if was, err := ledger.HeadOf(b.LedgerSize, tree); err != nil || was.Hash != b.LedgerRoot {
			s.t.Errorf("bulletin %d names another tree of %d leaves: %v", number, b.LedgerSize, err)
		}
	}
	return nil
}

// Two daemons on one PostgreSQL database: either is killed, and the database server
// crashes, at random moments. No order gets two certificates, no certificate two leaves,
// the ledger stays one tree, and nothing that was acknowledged is lost.
func TestTwoDaemonsUnderKills(t *testing.T) {
	server := testenv.PostgresServer(t)
	s := newSiege(t, server.Database(t).DSN, 2)
	turn := 0
	s.run(48, 6, 8, func() {
		turn++
		if turn%4 == 0 {
			server.Crash(t)
			server.Start(t)
			return
		}
		b := s.daemons[rand.IntN(len(s.daemons))]
		_ = b.stop(syscall.SIGKILL)
		b.start()
	})
}

// The same for one daemon on an SQLite file.
func TestOneDaemonUnderKills(t *testing.T) {
	s := newSiege(t, "", 1)
	s.run(45, 4, 15, func() {
		_ = s.daemons[0].stop(syscall.SIGKILL)
		s.daemons[0].start()
	})
}
