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
}

// newBureau has alice on the roster, cleared for classes 1 to 3.
func newBureau(t testing.TB) *bureau {
	t.Helper()
	b := &bureau{
		Ministry: enrolltest.NewMinistry(t, enrolltest.MinistryConfig{}),
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

func TestTwoOfficersApprove(t *testing.T) {
	b := newBureau(t)
	p := b.petition(b.account("alice"), b.card())
	b.want(p, "processing")
	if list, err := b.Requests(t.Context(), 10); err != nil || len(list) != 1 || list[0].ID != p.id || list[0].Needs != 2 {
		t.Errorf("requests %+v, %v", list, err)
	}
	out := b.ok(b.Olga, b.template(p))
	if out.State != call.OutcomeWaiting || out.Have != 1 || out.Need != 2 {
		t.Errorf("got %+v", out)
	}
	b.want(p, "processing")
	out = b.ok(b.Oscar, b.template(p))
	if out.State != call.OutcomeRecorded {
		t.Errorf("got %+v", out)
	}
	b.want(p, "valid")
	device := b.check(p.client.Fetch(p.Order), "alice")
	if device.ID != p.card.ID(t) || !enrolltest.Clearance(t, 1, 2, 3).Covers(device.Clearance) || device.Clearance == nil {
		t.Errorf("got %+v", device)
	}
	if findings := b.auditors(); len(findings) != 0 {
		t.Errorf("auditors find %v", findings)
	}
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

func TestOfficerRefuses(t *testing.T) {
	b := newBureau(t)
	p := b.petition(b.account("alice"), b.card())
	b.approve(p, b.Olga)
	b.ok(b.Oscar, &statement.Refusal{Request: p.id, Reason: "not at the door"})
	b.want(p, "invalid refused")
	if _, reason := b.say(b.Otto, &statement.Approval{Request: p.id, Template: b.Ministry.Template(t, "alice", nil)}); reason == "" {
		t.Error("approved after it was refused")
	}
}

// What an officer signs is compared with what would be issued, when it is handed in.
func TestApprovalOfSomethingElse(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *statement.Approval)
		want   string
	}{
		"control":          {func(*statement.Approval) {}, ""},
		"another evidence": {func(a *statement.Approval) { a.Evidence[0] ^= 1 }, call.ReasonConflict},
		"more clearance":   {func(a *statement.Approval) { a.Clearance = enrolltest.Clearance(t, 1, 5) }, call.ReasonConflict},
		"no such request":  {func(a *statement.Approval) { a.Request = "nobody" }, call.ReasonNotFound},
		"a longer life":    {func(a *statement.Approval) { a.Validity *= 2 }, call.ReasonConflict},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			body := b.template(b.petition(b.account("alice"), b.card()))
			c.change(body)
			if _, got := b.say(b.Olga, body); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A statement that is handed in twice has one effect, and the same outcome.
func TestSubmitTwice(t *testing.T) {
	b := newBureau(t)
	raw := b.Olga.Sign(t, b.clock.now(), &statement.Suspension{
		Target: statement.Target{Kind: statement.TargetPerson, Address: address(t, "alice")}, Reason: "lost", Change: statement.NewID(),
	})
	first, reason := b.hand(raw)
	again, reason2 := b.hand(raw)
	if reason != "" || reason2 != "" || first.Index != again.Index || first.State != again.State {
		t.Errorf("%+v %q, %+v %q", first, reason, again, reason2)
	}
}

// Suspended, revoked or removed: nothing is issued, whatever was approved, and open
// orders end.
func TestNothingForTheSuspended(t *testing.T) {
	target := func(kind string) func(b *bureau, p *petition) statement.Body {
		return func(b *bureau, p *petition) statement.Body {
			now := statement.Target{Kind: kind}
			switch kind {
			case statement.TargetDevice:
				now.Device = p.card.ID(t)
			case statement.TargetPerson:
				now.Address = address(t, "alice")
			case statement.TargetSerial:
				now.Serial = identity.SerialHash("yubico-piv", 4711)
			case statement.TargetRoot:
				now.Root = sha(b.Vendor.Root.Raw)
			}
			return &statement.Suspension{Target: now, Reason: "lost", Change: statement.NewID()}
		}
	}
	for name, c := range map[string]struct {
		body func(b *bureau, p *petition) statement.Body
		want string
	}{
		"control": {nil, "valid"},
		"device":  {target(statement.TargetDevice), "invalid device_suspended"},
		"person":  {target(statement.TargetPerson), "invalid person_suspended"},
		"card":    {target(statement.TargetSerial), "invalid card_suspended"},
		"root":    {target(statement.TargetRoot), "invalid root_suspended"},
		"removed": {func(b *bureau, _ *petition) statement.Body {
			return &statement.Removal{Change: statement.NewID(), Address: address(t, "alice"), Previous: b.line("alice", nil).Previous, Reason: "left"}
		}, "invalid not_on_roster"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.petition(b.account("alice"), b.Vendor.Card(t, enrolltest.CardConfig{Serial: 4711}))
			b.away.Store(true) // the token is away while it is approved
			b.approve(p, b.Olga, b.Oscar)
			if c.body != nil {
				b.ok(b.Otto, c.body(b, p))
			}
			b.away.Store(false)
			b.resume()
			b.want(p, c.want)
		})
	}
}

// A device of a person who is suspended does not even get an order.
func TestNoOrderForTheSuspended(t *testing.T) {
	b := newBureau(t)
	c := b.account("alice")
	suspension := &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: address(t, "alice")}, Reason: "lost", Change: statement.NewID()}
	b.ok(b.Olga, suspension)
	_, r := c.NewOrder(b.card().ID(t).String())
	b.expect(r, 403, "unauthorized", "person_suspended")
	resumption := &statement.Resumption{Target: suspension.Target, Reason: "found", Change: statement.NewID()}
	b.ok(b.Olga, resumption)
	b.ok(b.Oscar, resumption)
	if o, r := c.NewOrder(b.card().ID(t).String()); o == nil {
		t.Errorf("control: %d %s", r.Status, r.Reason)
	}
}

// Renewal stands on the first approvals; a higher clearance or a long absence waits
// for new ones and says so to the applicant.
func TestRenewalWithoutOfficers(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		raise  bool
		want   string
		reason string
	}{
		"control":      {5 * day, false, "valid", ""},
		"in the grace": {30 * day, false, "valid", ""},
		"months away":  {90 * day, false, "processing", string(record.Lapsed)},
		"raised":       {5 * day, true, "processing", string(record.Raised)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.enrolled()
			b.clock.move(c.after)
			if c.raise {
				b.enlist("alice", enrolltest.Clearance(t, 1, 2, 3, 4))
			}
			again := b.renew(p)
			b.want(again, c.want)
			if c.reason != "" {
				r := again.client.Post(again.URL, nil)
				if !bytes.Contains(r.Body, []byte(c.reason)) || !bytes.Contains(r.Body, []byte(record.Why(c.reason).Text())) {
					t.Errorf("the applicant reads %s", r.Body)
				}
				b.approve(again, b.Olga, b.Otto)
				b.want(again, "valid")
			}
			if findings := b.auditors(); len(findings) != 0 {
				t.Errorf("auditors find %v", findings)
			}
		})
	}
}

// New roots or a stricter policy reach the next renewal, and the devices that do not
// pass any more are known at once.
func TestReappraisal(t *testing.T) {
	advisory := func(b *bureau) statement.Body {
		return &statement.Appraisal{Change: statement.NewID(), Policy: []byte(`{"min_firmware":"5.7.4"}`)}
	}
	roots := func(b *bureau) statement.Body {
		return &statement.Endorsements{Change: statement.NewID(), PEM: enrolltest.NewVendor(t).PEM()}
	}
	for name, c := range map[string]struct {
		change func(b *bureau) statement.Body
		reason string
	}{"control": {nil, ""}, "firmware advisory": {advisory, "firmware_too_old"}, "roots": {roots, "unknown_root"}} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.enrolled()
			if c.change != nil {
				body := c.change(b)
				b.ok(b.Anna, body)
				b.ok(b.Arno, body)
			}
			if err := b.Reappraise(t.Context()); err != nil {
				t.Fatal(err)
			}
			failed := b.Distrusted()
			if c.reason == "" {
				if len(failed) != 0 {
					t.Errorf("got %v", failed)
				}
				b.want(b.renew(p), "valid")
				return
			}
			if len(failed) != 1 || failed[0].Device != p.card.ID(t) || failed[0].Reason != c.reason {
				t.Errorf("got %v", failed)
			}
			o, _ := p.client.NewOrder(p.card.ID(t).String())
			if ch, _ := p.client.Attest(o, p.card.Answer(t, p.client.KeyAuthorization(o))); ch.Status != "invalid" || ch.Error.Reason != c.reason {
				t.Errorf("the challenge is %+v", ch)
			}
		})
	}
}

// The devices behind a card's number and a vendor's root are found in the evidence.
func TestDevicesBehindHardware(t *testing.T) {
	b := newBureau(t)
	p := b.enrolled()
	b.enrolled()
	root := statement.Target{Kind: statement.TargetRoot, Root: sha(b.Vendor.Root.Raw)}
	if all, err := b.Devices(t.Context(), root); err != nil || len(all) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
	r, err := b.Request(t.Context(), p.id)
	if err != nil || r.State != call.StateIssued {
		t.Errorf("got %+v, %v", r, err)
	}
	person, err := b.Person(t.Context(), address(t, "alice"))
	if err != nil || len(person.Devices) != 2 {
		t.Errorf("got %+v, %v", person, err)
	}
}

// The configuration can ask for more than the record, and not for less.
func TestConfigurationOnlyTightens(t *testing.T) {
	b := newBureau(t)
	tight, err := ca.New(ca.Config{
		Store: b.store, Book: b.book, Domain: domain, Chain: b.Chain(), Signer: b.key, Now: b.clock.now,
		Device: ca.Profile{Name: "device", Approvals: 3, Validity: day},
	})
	if err != nil {
		t.Fatal(err)
	}
	loose, err := ca.New(ca.Config{
		Store: b.store, Book: b.book, Domain: domain, Chain: b.Chain(), Signer: b.key, Now: b.clock.now,
		Device: ca.Profile{Name: "device", Approvals: 0, Validity: 300 * day},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := b.petition(b.account("alice"), b.card())
	if _, err := loose.IssueDevice(t.Context(), p.id); !errors.Is(err, ca.ErrApprovals) {
		t.Errorf("without approvals: %v", err)
	}
	b.away.Store(true)
	b.approve(p, b.Olga, b.Oscar)
	b.away.Store(false)
	if _, err := tight.IssueDevice(t.Context(), p.id); !errors.Is(err, ca.ErrApprovals) {
		t.Errorf("with two of three: %v", err)
	}
	i, err := loose.IssueDevice(t.Context(), p.id)
	if err != nil || i.NotAfter.Sub(b.clock.now()) > 7*day {
		t.Errorf("until %v, %v", i.NotAfter, err)
	}
}

// Two administrators appoint an officer whose card was accepted; the certificate
// follows by itself, also after the token was away.
func TestAppointedOfficerGetsCertificate(t *testing.T) {
	b := newBureau(t)
	body, key := b.applicant("nina", identity.RoleOfficer)
	stranger := *body
	stranger.Evidence[0] ^= 1
	if _, reason := b.say(b.Anna, &stranger); reason != call.ReasonNotFound {
		t.Errorf("evidence that nobody accepted: %q", reason)
	}
	b.ok(b.Anna, body)
	b.away.Store(true)
	b.ok(b.Arno, body)
	b.away.Store(false)
	b.work()
	o, err := b.Authority.Officer(t.Context(), key)
	if err != nil || len(o.Chain) != 2 || o.Role != identity.RoleOfficer {
		t.Fatalf("got %+v, %v", o, err)
	}
	var trust *identity.Trust
	b.book.View(func(s *record.State) { trust = s.Trust() })
	if known, err := trust.Officer(o.Chain, b.clock.now()); err != nil || known.Address != address(t, "nina") {
		t.Errorf("got %+v, %v", known, err)
	}
	if findings := b.auditors(); len(findings) != 0 {
		t.Errorf("auditors find %v", findings)
	}
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
