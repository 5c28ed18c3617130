// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/bulletin/stream"
	"valise/enroll/book"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

const domain = "interieur.example"

// An office is an authority whose parts are called one by one.
type office struct {
	*paper.Authority
	t          testing.TB
	olga, otto *paper.Officer
	store      *authority.Store
	book       *book.Book
	feed       *Feed
	gateway    *tls.Certificate
	now        time.Time
}

func newOffice(t testing.TB) *office {
	t.Helper()
	a := paper.New(t, domain)
	o := &office{
		Authority: a, t: t, olga: a.Officer("olga", identity.RoleOfficer), otto: a.Officer("otto", identity.RoleOfficer),
		gateway: a.Gateway("gateway.interieur.example"), now: time.Now(),
	}
	store, err := authority.Open(context.Background(), filepath.Join(t.TempDir(), "authority.db"))
	o.store = paper.Must(t, store, err)
	t.Cleanup(func() { _ = store.Close() })
	o.reopen()
	manifest, _ := a.First()
	o.add(ledger.KindFounding, a.SignRoot(a.Founding(o.olga, o.otto)))
	o.add(ledger.KindManifest, manifest)
	return o
}

// reopen replays the record, as a new process does.
func (o *office) reopen() {
	o.t.Helper()
	b, err := book.Open(context.Background(), book.Config{Store: o.store, Root: o.Root, LedgerKey: o.LedgerKey})
	o.book = paper.Must(o.t, b, err)
	f, err := New(Config{
		Store: o.store, Book: o.book, Root: o.Root, Domain: domain, Signer: o.BulletinKey, Now: func() time.Time { return o.now },
	})
	o.feed = paper.Must(o.t, f, err)
}

func (o *office) add(kind ledger.Kind, payload []byte) {
	o.t.Helper()
	err := o.book.Update(context.Background(), func(_ *authority.Tx, _ *record.State, add book.Append) error {
		_, err := add(kind, payload)
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) person(name string) *statement.Suspension {
	return &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: o.Address(name)}, Reason: "gone", Change: statement.NewID()}
}

func (o *office) publish() *bulletin.Bulletin {
	o.t.Helper()
	if err := o.feed.publish(context.Background()); err != nil {
		o.t.Fatal(err)
	}
	if o.feed.latest() == nil {
		return nil
	}
	return o.feed.latest().bulletin
}

func (o *office) items(from int64) []ledger.Item {
	o.t.Helper()
	var items []ledger.Item
	err := o.store.View(context.Background(), func(tx *authority.Tx) (err error) {
		items, err = tx.Items(from, 1000)
		return err
	})
	return paper.Must(o.t, items, err)
}

// asGateway makes a request as one that arrived over TLS.
func (o *office) asGateway(path string, body []byte) *http.Request {
	o.t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.TLS = o.tls()
	return r
}

func (o *office) tls() *tls.ConnectionState {
	state := new(tls.ConnectionState)
	for _, der := range o.gateway.Certificate {
		cert, err := x509.ParseCertificate(der)
		state.PeerCertificates = append(state.PeerCertificates, paper.Must(o.t, cert, err))
	}
	return state
}

func body(t testing.TB, events ...stream.Event) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, e := range events {
		if err := stream.Write(&b, e); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// When a bulletin is published: at the heartbeat, when standings change, when a
// statement was recorded that gateways obey on sight; not otherwise.
func TestDue(t *testing.T) {
	o := newOffice(t)
	first := o.publish()
	if first.Number != 1 || first.LedgerSize != 2 || len(first.Officers) != 2 || len(first.People) != 0 {
		t.Fatalf("first: %+v", first)
	}
	if b := o.publish(); b.Number != 1 {
		t.Error("published again without a reason")
	}
	o.add(ledger.KindStatement, o.olga.Sign(o.person("alice")))
	b := o.publish()
	if b.Number != 2 || len(b.People) != 1 || b.People[0].State != bulletin.Suspended {
		t.Errorf("after a suspension: %+v", b)
	}
	o.add(ledger.KindStatement, o.olga.Sign(&statement.Resumption{Target: o.person("alice").Target, Reason: "back", Change: statement.NewID()}))
	if b := o.publish(); b.Number != 3 || len(b.People) != 1 {
		t.Errorf("after one resumption: %+v", b) // it says the same of more leaves
	}
	o.now = o.now.Add(29 * time.Second)
	if b := o.publish(); b.Number != 3 {
		t.Error("published before the heartbeat")
	}
	o.now = o.now.Add(2 * time.Second)
	if b := o.publish(); b.Number != 4 || !b.Next.Equal(b.Time.Add(30*time.Second)) {
		t.Errorf("at the heartbeat: %+v", b)
	}
}

// What stands in a bulletin comes from the record.
func TestCompose(t *testing.T) {
	o := newOffice(t)
	device, card, person := identity.DeviceID{1}, identity.DeviceID{2}, o.Address("alice")
	say := func(b statement.Body) { o.add(ledger.KindStatement, o.olga.Sign(b)) }
	say(&statement.Suspension{Target: statement.Target{Kind: statement.TargetDevice, Device: device}, Reason: "lost", Change: statement.NewID()})
	say(&statement.Revocation{Target: statement.Target{Kind: statement.TargetSerial, Serial: strings.Repeat("ab", 32), Devices: []identity.DeviceID{device, card}}, Reason: "broken", Change: statement.NewID()})
	say(&statement.Revocation{Target: statement.Target{Kind: statement.TargetPerson, Address: person}, Reason: "gone", Change: statement.NewID()})
	say(&statement.Suspension{Target: statement.Target{Kind: statement.TargetOfficer, Address: o.otto.Address}, Reason: "on leave", Change: statement.NewID()})
	hidden := identity.DeviceID{3}
	o.feed.cfg.Devices = func(_ context.Context, t statement.Target) ([]identity.DeviceID, error) {
		if t.Kind != statement.TargetSerial {
			return nil, errors.New("asked for what statements name themselves")
		}
		return []identity.DeviceID{hidden}, nil
	}
	b := o.publish()
	states := make(map[identity.DeviceID]bulletin.State)
	for _, d := range b.Devices {
		states[d.ID] = d.State
	}
	if len(states) != 3 || states[device] != bulletin.Revoked || states[card] != bulletin.Revoked || states[hidden] != bulletin.Revoked {
		t.Errorf("devices %v", b.Devices)
	}
	if len(b.People) != 1 || b.People[0].Address != person || b.People[0].State != bulletin.Revoked {
		t.Errorf("people %v", b.People)
	}
	for _, officer := range b.Officers {
		want := map[identity.Address]bulletin.State{o.olga.Address: bulletin.Active, o.otto.Address: bulletin.Suspended}[officer.Address]
		if officer.State != want {
			t.Errorf("%s is %s, want %s", officer.Address, officer.State, want)
		}
	}
}

// A bulletin or checkpoint that somebody wrote into the database is not passed
// on, and numbers go on from where ours are.
func TestPlantedBulletin(t *testing.T) {
	o := newOffice(t)
	o.publish()
	stranger, err := bulletin.Sign(t.Context(), paper.NewKey(t), o.Bulletin(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.store.Update(t.Context(), func(tx *authority.Tx) error {
		return tx.AddBulletin(authority.SignedBulletin{Number: 2, JWS: stranger})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.feed.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := o.feed.latest().bulletin.Number; got != 1 {
		t.Errorf("bulletin %d is passed on", got)
	}
	w := httptest.NewRecorder()
	o.feed.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, PathBulletin, nil))
	if bytes.Equal(w.Body.Bytes(), stranger) {
		t.Error("everybody is served a stranger's bulletin")
	}
}

// What a gateway gives back is taken in whole or not at all. Each case differs
// from the honest control in one thing.
func TestRestoreRefused(t *testing.T) {
	full := newOffice(t)
	full.add(ledger.KindStatement, full.olga.Sign(full.person("alice")))
	full.add(ledger.KindStatement, full.otto.Sign(full.person("bob")))
	var head ledger.Head
	full.book.View(func(s *record.State) { head = s.Head() })
	items := full.items(0)
	note := full.Checkpoint(head)
	signed := full.SignBulletin(full.Bulletin(9))
	strange := paper.New(t, domain)
	stranger, err := bulletin.Sign(t.Context(), paper.NewKey(t), full.Bulletin(9))
	if err != nil {
		t.Fatal(err)
	}
	other := full.olga.Sign(full.person("carol"))
	entry, err := ledger.NewEntry(ledger.KindStatement, other, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	event := func(i ledger.Item) stream.Event {
		return stream.Item{Index: i.Index, Entry: i.Entry.Marshal(), Payload: i.Payload}.Event()
	}
	checkpoint := stream.Event{Kind: stream.KindCheckpoint, Body: note}
	news := stream.Event{Kind: stream.KindBulletin, Body: signed}
	for name, test := range map[string]struct {
		events []stream.Event
		leaves int64
	}{
		"honest control":            {[]stream.Event{checkpoint, event(items[2]), event(items[3]), news}, 4},
		"with what is known":        {[]stream.Event{checkpoint, event(items[1]), event(items[2]), event(items[3]), news}, 4},
		"a leaf is missing":         {[]stream.Event{checkpoint, event(items[2]), news}, 2},
		"the first is missing":      {[]stream.Event{checkpoint, event(items[3]), news}, 2},
		"another leaf":              {[]stream.Event{checkpoint, event(ledger.Item{Index: 2, Entry: entry, Payload: other}), event(items[3]), news}, 2},
		"another payload":           {[]stream.Event{checkpoint, event(ledger.Item{Index: 2, Entry: items[2].Entry, Payload: other}), event(items[3])}, 2},
		"a stranger's checkpoint":   {[]stream.Event{{Kind: stream.KindCheckpoint, Body: strange.Checkpoint(head)}, event(items[2]), event(items[3])}, 2},
		"a stranger's bulletin":     {[]stream.Event{checkpoint, event(items[2]), event(items[3]), {Kind: stream.KindBulletin, Body: stranger}}, 2},
		"a stranger's manifest":     {[]stream.Event{{Kind: stream.KindManifest, Body: strange.SignRoot(strange.Manifest(2, [32]byte{1}))}, checkpoint, event(items[2]), event(items[3])}, 2},
		"out of order":              {[]stream.Event{checkpoint, news, event(items[2]), event(items[3])}, 2},
		"two checkpoints":           {[]stream.Event{checkpoint, checkpoint, event(items[2]), event(items[3])}, 2},
		"leaves without checkpoint": {[]stream.Event{event(items[2]), event(items[3])}, 4},
		"as far as they hold":       {[]stream.Event{event(items[2]), event(ledger.Item{Index: 3, Entry: items[2].Entry, Payload: items[2].Payload})}, 3},
	} {
		o := newOfficeOf(t, full)
		w := httptest.NewRecorder()
		o.feed.Handler().ServeHTTP(w, o.asGateway(stream.PathRestore, body(t, test.events...)))
		want := http.StatusNoContent
		if test.leaves == 2 {
			want = http.StatusBadRequest
		}
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, want)
		}
		if got := int64(len(o.items(0))); got != test.leaves {
			t.Errorf("%s: %d leaves, want %d", name, got, test.leaves)
		}
		err := o.store.View(t.Context(), func(tx *authority.Tx) error { _, err := tx.LatestBulletin(); return err })
		if kept := err == nil; kept != (test.leaves == 4 && len(test.events) > 3) {
			t.Errorf("%s: a bulletin was kept: %t", name, kept)
		}
	}
}

// newOfficeOf is an authority that was restored from the first two leaves of
// another one.
func newOfficeOf(t testing.TB, full *office) *office {
	t.Helper()
	o := *full
	o.t = t
	store, err := authority.Open(context.Background(), filepath.Join(t.TempDir(), "authority.db"))
	o.store = paper.Must(t, store, err)
	t.Cleanup(func() { _ = store.Close() })
	err = store.Append(context.Background(), func(tx *authority.Tx) error {
		for _, i := range full.items(0)[:2] {
			if _, err := tx.AppendLeaf(i.Entry, i.Payload); err != nil {
				return err
			}
		}
		return tx.SetFlag(authority.FlagRestored, []byte("x"))
	})
	if err != nil {
		t.Fatal(err)
	}
	o.reopen()
	return &o
}

// As many gateways as configured are asked before the authority goes on; one
// that has nothing of it does not count.
func TestGatewaysAsked(t *testing.T) {
	full := newOffice(t)
	var head ledger.Head
	full.book.View(func(s *record.State) { head = s.Head() })
	note := stream.Event{Kind: stream.KindCheckpoint, Body: full.Checkpoint(head)}
	hello := stream.Hello{Manifest: 1, Size: 2}.Event()
	o := newOfficeOf(t, full)
	o.feed.cfg.Gateways = 2
	readOnly := func() bool {
		return errors.Is(o.store.View(t.Context(), (*authority.Tx).Writable), authority.ErrRestored)
	}
	ask := func(name string, events ...stream.Event) {
		t.Helper()
		if code := o.ask(name, stream.PathStream, events...); code != http.StatusOK {
			t.Errorf("%s: %d", name, code)
		}
	}
	ask("one.interieur.example", hello, note)
	ask("new.interieur.example", stream.Hello{}.Event())
	ask("new2.interieur.example", stream.Hello{}.Event())
	if !readOnly() {
		t.Fatal("one gateway was asked, and two that know nothing")
	}
	ask("two.interieur.example", hello, note)
	if readOnly() {
		t.Error("read-only although two gateways were asked")
	}
}

// A gateway that does not read is dropped.
func TestSlowGateway(t *testing.T) {
	o := newOffice(t)
	o.publish()
	o.feed.patience = 50 * time.Millisecond
	done := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		r.TLS = o.tls()
		o.feed.Handler().ServeHTTP(w, r)
	})}
	ours, theirs := net.Pipe() // which holds nothing: who does not read blocks who writes
	go func() { _ = server.Serve(&single{conn: theirs, closed: make(chan struct{})}) }()
	t.Cleanup(func() { _ = server.Close() })
	text := body(t, stream.Hello{}.Event())
	request, err := http.NewRequest(http.MethodPost, "http://authority"+stream.PathStream, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Write(ours); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(ours).ReadByte(); err != nil { // it began to answer
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the authority waits for a gateway that does not read")
	}
}

// single is a listener with one connection.
type single struct {
	conn   net.Conn
	closed chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if conn := s.conn; conn != nil {
		s.conn = nil
		return conn, nil
	}
	<-s.closed
	return nil, net.ErrClosed
}

func (s *single) Close() error {
	close(s.closed)
	return nil
}
func (s *single) Addr() net.Addr { return &net.UnixAddr{} }

// Whatever stands in a request's body, the answer is a status.
func FuzzRequests(f *testing.F) {
	full := newOffice(f)
	full.add(ledger.KindStatement, full.olga.Sign(full.person("alice")))
	var head ledger.Head
	full.book.View(func(s *record.State) { head = s.Head() })
	manifest, _ := full.First()
	item := full.items(2)[0]
	events := []stream.Event{
		stream.Hello{Manifest: 1, Size: 3}.Event(),
		{Kind: stream.KindManifest, Body: manifest},
		{Kind: stream.KindCheckpoint, Body: full.Checkpoint(head)},
		{Kind: stream.KindBulletin, Body: full.SignBulletin(full.Bulletin(1))},
	}
	f.Add(body(f, events...), true)
	f.Add(body(f, append(slices.Clone(events[1:3]), stream.Item{Index: item.Index, Entry: item.Entry.Marshal(), Payload: item.Payload}.Event())...), false)
	f.Add([]byte{1, 0, 0, 0, 16}, true)
	f.Fuzz(func(t *testing.T, data []byte, hello bool) {
		if hello {
			_, _ = full.feed.readClaim(bytes.NewReader(data))
			return
		}
		_, _ = full.feed.readReturned(bytes.NewReader(data))
	})
}
