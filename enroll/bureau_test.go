// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"database/sql"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll"
	"valise/enroll/acme"
	"valise/enroll/book"
	"valise/enroll/ca"
	"valise/enroll/ceremony"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/daemon"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

const day = 24 * time.Hour

// A bureau is a site whose authority has officers.
type bureau struct {
	*site
	*enrolltest.Ministry
	book  *book.Book
	path  string
	front atomic.Pointer[acme.Server]
	log   *daemon.Audit
	key   crypto.Signer // the issuing token

	forwarded [][]byte // statements that gateways were told beside the record
}

// newBureau has alice on the roster, cleared for classes 1 to 3.
func newBureau(t testing.TB) *bureau {
	t.Helper()
	return newBureauOf(t, enrolltest.MinistryConfig{})
}

// newBureauOf is newBureau for an authority that was founded in another way.
func newBureauOf(t testing.TB, cfg enrolltest.MinistryConfig) *bureau {
	t.Helper()
	b := &bureau{
		Ministry: enrolltest.NewMinistry(t, cfg),
		path:     filepath.Join(t.TempDir(), "authority.db"),
	}
	b.site = &site{away: new(atomic.Bool), audit: new(auditLog), clock: new(clock), t: t, vendor: b.Vendor, root: b.Root}
	b.log = daemon.NewAudit(b.audit)
	b.key = mayFail{b.IssuerKey, b.away}
	b.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.front.Load().ServeHTTP(w, r) }))
	t.Cleanup(b.server.Close)
	if err := b.tryStart(); err == nil {
		t.Fatal("started without a founding record")
	}
	err := b.book.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error { return b.Open(add) })
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	b.enlist("alice", enrolltest.Clearance(t, 1, 2, 3))
	return b
}

// start opens everything on the database, as a process does.
func (b *bureau) start() {
	b.t.Helper()
	if err := b.tryStart(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bureau) tryStart() (err error) {
	t := b.t
	if b.store, err = authority.Open(t.Context(), b.path); err != nil {
		return err
	}
	t.Cleanup(func() { _ = b.store.Close() })
	if b.book, err = book.Open(t.Context(), book.Config{Store: b.store, Root: b.Root, LedgerKey: b.LedgerKey, Now: b.clock.now}); err != nil {
		return err
	}
	b.ca, err = ca.New(ca.Config{
		Store: b.store, Book: b.book, Domain: domain, Chain: b.Chain(), Signer: b.key, Device: ca.Profile{Name: "device"}, Now: b.clock.now,
		Appraiser: &ca.Appraiser{Policy: b.Policy(t), Endorsements: b.Vendor.Endorsements(t)},
	})
	if err != nil {
		return err
	}
	b.Authority, err = enroll.New(enroll.Config{
		Store: b.store, CA: b.ca, Domain: domain, URL: "https://enroll.interieur.example", Event: b.log.Event, Now: b.clock.now,
		Forward: func(raw []byte) { b.forwarded = append(b.forwarded, raw) },
	})
	if err != nil {
		return err
	}
	front, err := acme.New(acme.Config{
		BaseURL: b.server.URL, Backend: b.Authority, Log: slog.New(slog.DiscardHandler), PerSecond: 1e6, Burst: 1e6,
		Refused: func(ctx context.Context, r *acme.Refusal, attrs ...slog.Attr) {
			_ = b.log.Refused(ctx, "enrollment refused", string(r.Reason), attrs...)
		},
	})
	b.front.Store(front)
	return err
}

// forge writes to the database as somebody does who has the file and nothing else.
func (b *bureau) forge(query string, args ...any) {
	b.t.Helper()
	db, err := sql.Open("sqlite", "file:"+b.path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close()
	res, err := db.ExecContext(b.t.Context(), query, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		b.t.Fatalf("%d rows changed: %v", n, err)
	}
}

// say hands a statement in and returns the reason for which it was refused.
func (b *bureau) say(o *enrolltest.Officer, body statement.Body) (call.Outcome, string) {
	b.t.Helper()
	return b.hand(o.Sign(b.t, b.clock.now(), body))
}

func (b *bureau) hand(raw []byte) (call.Outcome, string) {
	b.t.Helper()
	out, err := b.Submit(b.t.Context(), raw)
	if err == nil {
		return out, ""
	}
	refusal, ok := errors.AsType[*desk.Refusal](err)
	if !ok {
		b.t.Fatalf("%T %v", err, err)
	}
	return out, refusal.Reason
}

// ok fails the test if a statement is refused.
func (b *bureau) ok(o *enrolltest.Officer, body statement.Body) call.Outcome {
	b.t.Helper()
	out, reason := b.say(o, body)
	if reason != "" {
		b.t.Fatalf("%s refused: %s", body.Kind(), reason)
	}
	return out
}

func (b *bureau) line(name string, c *identity.Clearance) *statement.Roster {
	body := &statement.Roster{Change: statement.NewID(), Address: address(b.t, name), Name: name, Clearance: c}
	b.book.View(func(s *record.State) { body.Previous = s.Previous(body.Address) })
	return body
}

func (b *bureau) enlist(name string, c *identity.Clearance) {
	b.t.Helper()
	body := b.line(name, c)
	b.ok(b.Olga, body)
	b.ok(b.Oscar, body)
}

// account returns a client with an account by an officer's invitation.
func (b *bureau) account(name string) *enrolltest.Client {
	b.t.Helper()
	out := b.ok(b.Olga, &statement.Invitation{Address: address(b.t, name), Key: statement.NewID()})
	inv, err := identity.ParseInvitation(out.Invitation)
	if err != nil {
		b.t.Fatal(err)
	}
	c := b.client()
	if r := c.Register(inv); r.Status != http.StatusCreated {
		b.t.Fatalf("register: %d %s", r.Status, r.Body)
	}
	return c
}

// A petition is an order that is finalized.
type petition struct {
	*enrolltest.Order
	client *enrolltest.Client
	card   *enrolltest.Card
	id     string
}

func (b *bureau) petition(c *enrolltest.Client, card *enrolltest.Card) *petition {
	b.t.Helper()
	o, r := c.NewOrder(card.ID(b.t).String())
	if o == nil {
		b.t.Fatalf("order: %d %s", r.Status, r.Body)
	}
	if ch, r := c.Attest(o, card.Answer(b.t, c.KeyAuthorization(o))); ch == nil || ch.Status != "valid" {
		b.t.Fatalf("attest: %d %s", r.Status, r.Body)
	}
	p := &petition{client: c, card: card, id: o.URL[strings.LastIndexByte(o.URL, '/')+1:]}
	if p.Order, r = c.Finish(o, enrolltest.CSR(b.t, card.Key)); p.Order == nil {
		b.t.Fatalf("finalize: %d %s", r.Status, r.Body)
	}
	return p
}

// state is what became of the order, as its row says.
func (b *bureau) state(p *petition) (out string) {
	b.t.Helper()
	err := b.store.View(b.t.Context(), func(tx *authority.Tx) error {
		o, err := tx.Order(p.id)
		if out = o.Status; o.Status == authority.Invalid {
			out += " " + o.Reason
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	if out == authority.Valid {
		p.client.Post(p.URL, nil).Into(b.t, p.Order)
	}
	return out
}

// template is what an officer is shown and signs.
func (b *bureau) template(p *petition) *statement.Approval {
	b.t.Helper()
	r, err := b.Request(b.t.Context(), p.id)
	if err != nil {
		b.t.Fatal(err)
	}
	if r.Approval == nil {
		b.t.Fatalf("nothing to approve: %s %s", r.State, r.Refusal)
	}
	body, err := r.Approval.Parse()
	if err != nil {
		b.t.Fatal(err)
	}
	return body.(*statement.Approval)
}

func (b *bureau) approve(p *petition, officers ...*enrolltest.Officer) {
	b.t.Helper()
	for _, o := range officers {
		b.ok(o, b.template(p))
	}
}

// enrolled is a device of alice's with a certificate.
func (b *bureau) enrolled() *petition {
	b.t.Helper()
	p := b.petition(b.account("alice"), b.card())
	b.approve(p, b.Olga, b.Oscar)
	if got := b.state(p); got != "valid" {
		b.t.Fatalf("enrolled: %s", got)
	}
	return p
}

// renew asks for another certificate for an enrolled device.
func (b *bureau) renew(p *petition) *petition {
	b.t.Helper()
	return b.petition(p.client, p.card)
}

func (b *bureau) resume() {
	b.t.Helper()
	if err := b.Resume(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bureau) want(p *petition, want string) {
	b.t.Helper()
	if got := b.state(p); got != want {
		b.t.Errorf("order %q, want %q", got, want)
	}
}

// heard reports whether the audit stream has a line with all of these.
func (b *bureau) heard(parts ...string) bool {
	b.audit.mu.Lock()
	defer b.audit.mu.Unlock()
	for line := range bytes.Lines(b.audit.b.Bytes()) {
		all := true
		for _, part := range parts {
			all = all && bytes.Contains(line, []byte(part))
		}
		if all {
			return true
		}
	}
	return false
}

// auditors replay what is in the database.
func (b *bureau) auditors() []record.Finding {
	b.t.Helper()
	var items []ledger.Item
	var head ledger.Head
	err := b.store.View(b.t.Context(), func(tx *authority.Tx) (err error) {
		if items, err = tx.Items(0, 10000); err == nil {
			head, err = tx.LedgerHead()
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	findings, err := record.Verify(b.Root, func(yield func(ledger.Item, error) bool) {
		for _, i := range items {
			if !yield(i, nil) {
				return
			}
		}
	}, head)
	if err != nil {
		b.t.Fatal(err)
	}
	return findings
}

// applicant is somebody whose card in 9c was accepted at the desk.
func (b *bureau) applicant(name string, role identity.Role) (*statement.Appointment, identity.DeviceID) {
	b.t.Helper()
	card := b.Vendor.Card(b.t, enrolltest.CardConfig{Slot: "9c", PINPolicy: byte(attest.PINAlways)})
	nonce, err := b.Nonce(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := ceremony.Apply(ceremony.Appointment(nonce), address(b.t, name), role, card.Key, card.Evidence)
	if err != nil {
		b.t.Fatal(err)
	}
	file, err := a.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := b.Application(b.t.Context(), file)
	if err != nil {
		b.t.Fatal(err)
	}
	body, err := answer.Appointment.Parse()
	if err != nil {
		b.t.Fatal(err)
	}
	return body.(*statement.Appointment), card.ID(b.t)
}

// work runs Work until an officer's certificate was issued.
func (b *bureau) work() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	done := make(chan error, 1)
	go func() { done <- b.Work(ctx) }()
	for !b.heard("officer's certificate issued") && ctx.Err() == nil {
		<-time.After(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		b.t.Fatal(err)
	}
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }
