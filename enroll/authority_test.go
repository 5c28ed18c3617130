// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll"
	"valise/enroll/acme"
	"valise/enroll/ca"
	"valise/enroll/enrolltest"
	"valise/hsm"
	"valise/identity"
	"valise/internal/daemon"
	"valise/internal/keys"
	"valise/internal/store/authority"
	"valise/internal/testenv"
)

const domain = "interieur.example"

// A site is an authority that answers over HTTPS, with its audit stream in memory.
type site struct {
	*enroll.Authority
	store   *authority.Store
	ca      *ca.CA
	root    *x509.Certificate
	vendor  *enrolltest.Vendor
	policy  *attest.AppraisalPolicy
	server  *httptest.Server
	inviter enroll.Inviter
	away    *atomic.Bool // the issuing token does not sign
	audit   *auditLog
	clock   *clock
	t       testing.TB
}

// clock is the authority's; tests move it.
type clock struct {
	mu    sync.Mutex
	shift time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.shift)
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift += d
}

// auditLog is an audit stream that can be read back and that can fail.
type auditLog struct {
	mu   sync.Mutex
	b    bytes.Buffer
	fail bool
}

func (l *auditLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail {
		return 0, errors.New("disk full")
	}
	return l.b.Write(p)
}

func (l *auditLog) setFail(v bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = v
}

// reasons returns the reasons of all refusals so far.
func (l *auditLog) reasons(t testing.TB) (all []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := json.NewDecoder(bytes.NewReader(l.b.Bytes())); ; {
		var line struct{ Reason string }
		err := d.Decode(&line)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if line.Reason != "" {
			all = append(all, line.Reason)
		}
	}
}

func (l *auditLog) last(t testing.TB) string {
	t.Helper()
	all := l.reasons(t)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// mayFail is a key that can be away.
type mayFail struct {
	crypto.Signer
	away *atomic.Bool
}

func (k mayFail) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.away.Load() {
		return nil, hsm.ErrDevice
	}
	return k.Signer.Sign(r, digest, opts)
}

// options vary a site.
type options struct {
	device    ca.Profile
	curve     elliptic.Curve
	endorsed  *attest.Endorsements
	perSecond float64
	burst     int
	keys      [2]crypto.Signer // root, issuing; nil: software
	database  string           // empty: a new SQLite file
}

func newSite(t testing.TB, o options) *site {
	t.Helper()
	if o.database == "" {
		o.database = filepath.Join(t.TempDir(), "authority.db")
	}
	store, err := authority.Open(t.Context(), o.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if o.curve == nil {
		o.curve = elliptic.P256()
	}
	for i := range o.keys {
		if o.keys[i] == nil {
			if o.keys[i], err = ecdsa.GenerateKey(o.curve, rand.Reader); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := &site{
		store: store, vendor: enrolltest.NewVendor(t), policy: new(attest.AppraisalPolicy),
		away: new(atomic.Bool), audit: new(auditLog), clock: new(clock), t: t,
	}
	root, issuing, err := ca.Found(domain, o.keys[0], o.keys[1], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.root = root
	if o.endorsed == nil {
		o.endorsed = s.vendor.Endorsements(t)
	}
	if o.device.Name == "" {
		o.device.Name = "device"
	}
	appraiser := &ca.Appraiser{Endorsements: o.endorsed, Policy: s.policy, ActivationKey: []byte(rand.Text())}
	s.ca, err = ca.New(ca.Config{
		Store: store, Domain: domain, Chain: []*x509.Certificate{issuing, root},
		Signer: mayFail{o.keys[1], s.away}, Appraiser: appraiser, Device: o.device, Now: s.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.serve(appraiser, o)
	s.roster("address,name,unit,clearance\nalice@interieur.example,Alice,,\nbob@interieur.example,Bob,,\n")
	return s
}

func (s *site) serve(appraiser *ca.Appraiser, o options) {
	t := s.t
	var front atomic.Pointer[acme.Server]
	s.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		front.Load().ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)
	audit := daemon.NewAudit(s.audit)
	var err error
	s.Authority, err = enroll.New(enroll.Config{
		Store: s.store, CA: s.ca, Appraiser: appraiser, Domain: domain,
		Event: audit.Event, Now: s.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.perSecond == 0 {
		o.perSecond, o.burst = 1e6, 1e6
	}
	f, err := acme.New(acme.Config{
		BaseURL: s.server.URL, Backend: s.Authority, Log: slog.New(slog.DiscardHandler),
		PerSecond: o.perSecond, Burst: o.burst,
		Refused: func(ctx context.Context, r *acme.Refusal, attrs ...slog.Attr) {
			_ = audit.Refused(ctx, "enrollment refused", string(r.Reason), attrs...)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	front.Store(f)
	s.inviter = enroll.Inviter{Store: s.store, URL: s.server.URL, Root: s.root, Event: audit.Event, Now: s.clock.now}
}

func (s *site) roster(csv string) {
	s.t.Helper()
	people, err := enroll.ReadRoster(bytes.NewReader([]byte(csv)), domain, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := enroll.ImportRoster(s.t.Context(), s.store, people); err != nil {
		s.t.Fatal(err)
	}
}

func address(t testing.TB, name string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(name + "@" + domain)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *site) invite(name string) identity.Invitation {
	s.t.Helper()
	inv, err := s.inviter.Invite(s.t.Context(), address(s.t, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return inv
}

func (s *site) client() *enrolltest.Client {
	return enrolltest.NewClient(s.t, s.server.Client(), s.server.URL)
}

func (s *site) card() *enrolltest.Card { return s.vendor.Card(s.t, enrolltest.CardConfig{}) }

// registered returns a client with an account.
func (s *site) registered(name string) *enrolltest.Client {
	s.t.Helper()
	c := s.client()
	if r := c.Register(s.invite(name)); r.Status != http.StatusCreated {
		s.t.Fatalf("register: %d %s", r.Status, r.Body)
	}
	return c
}

func (s *site) leaves() (n int64) {
	s.t.Helper()
	err := s.store.View(s.t.Context(), func(tx *authority.Tx) (err error) { n, err = tx.LedgerSize(); return err })
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// check verifies a chain as a gateway would.
func (s *site) check(chain [][]byte, name string) *identity.Device {
	s.t.Helper()
	trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{s.root}})
	device, err := trust.Device(chain, s.clock.now())
	if err != nil {
		s.t.Fatal(err)
	}
	if device.Address != address(s.t, name) {
		s.t.Errorf("issued for %s", device.Address)
	}
	return device
}

func TestEnroll(t *testing.T) {
	s := newSite(t, options{})
	card := s.card()
	chain := s.client().Enroll(s.invite("alice"), card)
	if len(chain) != 3 || !bytes.Equal(chain[2], s.root.Raw) {
		t.Errorf("a chain of %d, want it with the root", len(chain))
	}
	if device := s.check(chain, "alice"); device.ID != card.ID(t) {
		t.Error("issued for another key")
	}
	if got := s.audit.reasons(t); len(got) != 0 {
		t.Errorf("refusals on the honest path: %v", got)
	}
}

// The CA's key in a real PKCS#11 token, on both curves.
func TestEnrollOnSoftHSM(t *testing.T) {
	for _, algorithm := range []hsm.Algorithm{hsm.P256, hsm.P384} {
		t.Run(algorithm.String(), func(t *testing.T) {
			soft := testenv.SoftHSM(t)
			token, err := keys.OpenToken(t.Context(), soft.URI(), keys.PINFromFile(soft.PINFile))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = token.Close() })
			var o options
			for i, label := range []string{"root", "issuing"} {
				key, err := token.Generate(t.Context(), label, hsm.GenerateOptions{Algorithm: algorithm})
				if err != nil {
					t.Fatal(err)
				}
				o.keys[i] = key
			}
			s := newSite(t, o)
			card := s.vendor.Card(t, enrolltest.CardConfig{Curve: algorithm.Curve()})
			s.check(s.client().Enroll(s.invite("alice"), card), "alice")
		})
	}
}

// A device orders again under its account, with the same key: this is its renewal.
func TestRenewal(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.client()
	first := s.check(c.Enroll(s.invite("alice"), card), "alice")
	s.clock.move(5 * 24 * time.Hour)
	second := s.check(c.Enroll(identity.Invitation{}, card), "alice")
	if first.ID != second.ID || first.Leaf.SerialNumber.Cmp(second.Leaf.SerialNumber) == 0 || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("renewed %v into %v", first.Leaf.SerialNumber, second.Leaf.SerialNumber)
	}
	other := s.card()
	if _, r := c.NewOrder(other.ID(t).String()); r.Reason != "wrong_identifier" {
		t.Errorf("another card under the same account: %d %s", r.Status, r.Reason)
	}
}

// The token is away: the order waits in "processing" and is finished by Resume, with
// one leaf.
func TestOrderWaitsForTheToken(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.registered("alice")
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	s.away.Store(true)
	done, r := c.Finish(o, enrolltest.CSR(t, card.Key))
	if done == nil || done.Status != "processing" || r.Header.Get("Retry-After") == "" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.away.Store(false)
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Post(o.URL, nil).Into(t, done)
	if done.Status != "valid" {
		t.Fatalf("order %s", done.Status)
	}
	s.check(c.Fetch(done), "alice")
	if s.leaves() != 1 {
		t.Errorf("%d leaves", s.leaves())
	}
}

// With approvals asked for, nothing is signed, not by any number of attempts.
func TestApprovalsAreAwaited(t *testing.T) {
	s := newSite(t, options{device: ca.Profile{Approvals: 2}})
	card, c := s.card(), s.registered("alice")
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	done, _ := c.Finish(o, enrolltest.CSR(t, card.Key))
	if done.Status != "processing" {
		t.Fatalf("order %s", done.Status)
	}
	for range 2 {
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again, _ := c.Finish(o, enrolltest.CSR(t, card.Key)); again != nil && again.Status != "processing" {
			t.Fatalf("order %s", again.Status)
		}
	}
	if _, err := s.ca.IssueDevice(t.Context(), filepath.Base(o.URL)); !errors.Is(err, ca.ErrApprovals) {
		t.Errorf("the CA says %v", err)
	}
	c.Post(o.URL, nil).Into(t, o)
	if o.Status != "processing" || s.leaves() != 0 {
		t.Errorf("order %s, %d leaves", o.Status, s.leaves())
	}
}

// Two finalize requests at once, and a repeated one: one certificate.
func TestConcurrentFinalize(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.registered("alice")
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	csr := enrolltest.CSR(t, card.Key)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if done, r := c.Finish(o, csr); done == nil {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	wg.Wait()
	c.Post(o.URL, nil).Into(t, o)
	if o.Status != "valid" || s.leaves() != 1 {
		t.Errorf("order %s, %d leaves", o.Status, s.leaves())
	}
	if _, r := c.Finish(o, enrolltest.CSR(t, card.Key)); r.Reason != "order_not_ready" {
		t.Errorf("another CSR afterwards: %d %s", r.Status, r.Reason)
	}
}

// One invitation, many devices at once: one account.
func TestConcurrentRegister(t *testing.T) {
	s := newSite(t, options{})
	inv := s.invite("alice")
	var made, used atomic.Int64
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			switch r := s.client().Register(inv); {
			case r.Status == http.StatusCreated:
				made.Add(1)
			case r.Reason == "invitation_used":
				used.Add(1)
			default:
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 || used.Load() != 5 {
		t.Errorf("%d accounts, %d refused", made.Load(), used.Load())
	}
}

// Nothing is issued while the audit stream cannot be written.
func TestNoAuditNoCertificate(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.registered("alice")
	o, _ := c.NewOrder(card.ID(t).String())
	c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
	s.audit.setFail(true)
	if done, r := c.Finish(o, enrolltest.CSR(t, card.Key)); done != nil || r.Status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	if err := s.Resume(t.Context()); err == nil {
		t.Error("the background work did not notice")
	}
	if s.leaves() != 0 {
		t.Errorf("%d leaves", s.leaves())
	}
	s.audit.setFail(false)
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.Post(o.URL, nil).Into(t, o); o.Status != "valid" {
		t.Errorf("control: order %s", o.Status)
	}
}

// What Work does in the background, once by hand: expired things end.
func TestPurge(t *testing.T) {
	s := newSite(t, options{})
	card, c := s.card(), s.registered("alice")
	unused := s.invite("bob")
	o, _ := c.NewOrder(card.ID(t).String())
	s.clock.move(25 * time.Hour)
	if err := s.store.Purge(t.Context(), s.clock.now()); err != nil {
		t.Fatal(err)
	}
	c.Post(o.URL, nil).Into(t, o)
	if o.Status != "invalid" || o.Error == nil || o.Error.Reason != "order_expired" {
		t.Errorf("order %s %+v", o.Status, o.Error)
	}
	if _, r := c.Attest(o, card.Answer(t, c.KeyAuthorization(o))); r.Reason != "challenge_expired" {
		t.Errorf("%d %s", r.Status, r.Reason)
	}
	err := s.store.View(t.Context(), func(tx *authority.Tx) error {
		inv, err := tx.Invitation(unused.KID)
		if err == nil && len(inv.Key) != 0 {
			t.Error("the key of an expired invitation is still there")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
