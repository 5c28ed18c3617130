// SPDX-License-Identifier: Apache-2.0

package desk_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/testenv/office"
	"valise/statement"
)

// A clerk is an officer with a software key in the place of the card.
type clerk struct {
	t     testing.TB
	o     *office.Office
	key   *ecdsa.PrivateKey
	chain [][]byte
	*call.Client
}

func newClerk(t testing.TB, o *office.Office, url, name string, role identity.Role) *clerk {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return &clerk{t, o, key, o.Appoint(t, name, role, key.Public()), &call.Client{URL: url, Root: o.RootHash}}
}

func (c *clerk) sign(b statement.Body) []byte {
	c.t.Helper()
	raw, err := c.try(b)
	must(c.t, err)
	return raw
}

func (c *clerk) try(b statement.Body) ([]byte, error) {
	now := c.o.Now().Truncate(time.Second)
	return statement.Sign(c.t.Context(), c.key, c.chain, statement.Head{
		Authority: c.o.RootHash, ID: statement.NewID(), Time: now, Expires: now.Add(statement.SessionLife),
	}, b)
}

func (c *clerk) open() *clerk {
	c.t.Helper()
	must(c.t, c.Open(c.t.Context(), func(s *statement.Session) ([]byte, error) { return c.try(s) }))
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reason is the code of a refusal, "" for anything else.
func reason(err error) string {
	if p, ok := errors.AsType[*call.Problem](err); ok {
		return p.Reason
	}
	return ""
}

// Two officers approve a request over real TLS: each sees it, signs what it
// says, and hears what became of it.
func TestTwoOfficersApprove(t *testing.T) {
	o := office.New(t)
	url := o.Serve(t)
	olga, oskar := newClerk(t, o, url, "olga", identity.RoleOfficer).open(), newClerk(t, o, url, "oskar", identity.RoleOfficer).open()
	o.Enlist(t, "alice")
	id := o.Order(t, "alice").ID
	for i, c := range []*clerk{olga, oskar} {
		list, err := c.Requests(t.Context())
		must(t, err)
		if len(list) != 1 || list[0].ID != id || len(list[0].Approvals) != i {
			t.Fatalf("requests %+v", list)
		}
		r, err := c.Request(t.Context(), id)
		must(t, err)
		if r.Person == nil || r.Evidence == nil || len(r.Evidence.Claims) == 0 {
			t.Errorf("request %+v", r)
		}
		body, err := r.Approval.Parse()
		must(t, err)
		out, err := c.Submit(t.Context(), c.sign(body))
		must(t, err)
		if want := []string{call.OutcomeWaiting, call.OutcomeRecorded}[i]; out.State != want || out.Have != i+1 || out.Need != 2 {
			t.Errorf("outcome %+v", out)
		}
	}
	if list, err := olga.Requests(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("requests afterwards: %+v, %v", list, err)
	}
	events := o.Events()
	for _, want := range []string{"desk opened", "statement handed in"} {
		if n := len(slices.DeleteFunc(slices.Clone(events), func(s string) bool { return s != want })); n != 2 {
			t.Errorf("%q stands %d times in %v", want, n, events)
		}
	}
}

// Every reading works for every role, and for nobody without a session.
func TestReading(t *testing.T) {
	o := office.New(t)
	url := o.Serve(t)
	id := o.Order(t, "alice").ID
	o.Enlist(t, "alice")
	newClerk(t, o, url, "oskar", identity.RoleOfficer)
	reads := map[string]func(*clerk) error{
		"requests":  func(c *clerk) error { _, err := c.Requests(t.Context()); return err },
		"request":   func(c *clerk) error { _, err := c.Request(t.Context(), id); return err },
		"roster":    func(c *clerk) error { return c.Roster(t.Context(), func(*call.Person) error { return nil }) },
		"person":    func(c *clerk) error { _, err := c.Person(t.Context(), office.Address(t, "alice")); return err },
		"devices":   func(c *clerk) error { _, err := c.Devices(t.Context(), "person", "alice@"+office.Domain); return err },
		"rules":     func(c *clerk) error { _, err := c.Rules(t.Context()); return err },
		"profiles":  func(c *clerk) error { _, err := c.Profiles(t.Context()); return err },
		"officers":  func(c *clerk) error { _, err := c.Officers(t.Context()); return err },
		"proposals": func(c *clerk) error { _, err := c.Proposals(t.Context()); return err },
		"standings": func(c *clerk) error { _, err := c.Standings(t.Context()); return err },
		"ledger":    func(c *clerk) error { _, err := c.Items(t.Context(), 0); return err },
	}
	for _, role := range []identity.Role{identity.RoleOfficer, identity.RoleAdministrator, identity.RoleAuditor} {
		c := newClerk(t, o, url, string(role), role)
		for name, read := range reads {
			if err := read(c); reason(err) != call.ReasonSession {
				t.Errorf("%s without a session: %v", name, err)
			}
		}
		c.open()
		for name, read := range reads {
			if err := read(c); err != nil {
				t.Errorf("%s for %s: %v", name, role, err)
			}
		}
	}
}

// An auditor hands nothing in, whoever signed it.
func TestAuditorOnlyReads(t *testing.T) {
	o := office.New(t)
	url := o.Serve(t)
	auditor, officer := newClerk(t, o, url, "otto", identity.RoleAuditor).open(), newClerk(t, o, url, "olga", identity.RoleOfficer).open()
	stop := &statement.Suspension{Target: statement.Target{Kind: statement.TargetDevice, Device: identity.DeviceID{1}}, Reason: "lost", Change: statement.NewID()}
	raw := officer.sign(stop)
	if _, err := auditor.Submit(t.Context(), raw); reason(err) != call.ReasonRole {
		t.Errorf("an auditor hands in an officer's: %v", err)
	}
	if _, err := auditor.Submit(t.Context(), auditor.sign(stop)); reason(err) != call.ReasonRole {
		t.Errorf("an auditor hands in their own: %v", err)
	}
	if _, err := auditor.ApplicationNonce(t.Context()); reason(err) != call.ReasonRole {
		t.Errorf("an auditor draws a nonce: %v", err)
	}
	if _, err := officer.ApplicationNonce(t.Context()); reason(err) != call.ReasonRole {
		t.Errorf("an officer draws a nonce: %v", err)
	}
	if _, err := officer.Submit(t.Context(), raw); err != nil {
		t.Errorf("honest control: %v", err)
	}
}

// A session opens with the right statement, once, and with nothing else
// (spec/statement.md, Section 9.1).
func TestSessionRefusals(t *testing.T) {
	o := office.New(t)
	url := o.Serve(t)
	c := newClerk(t, o, url, "olga", identity.RoleOfficer)
	nonce := func() string { return o.NewNonce() }
	session := func(b statement.Body) error {
		return c.Open(t.Context(), func(*statement.Session) ([]byte, error) { return c.try(b) })
	}
	used := nonce()
	must(t, session(&statement.Session{Nonce: used, Server: url}))
	gone := newClerk(t, o, url, "gone", identity.RoleOfficer)
	o.Dismiss(gone.key.Public())
	stranger := newClerk(t, office.New(t), url, "olga", identity.RoleOfficer)
	stranger.Root = o.RootHash
	for name, test := range map[string]struct {
		try  func() error
		want string
	}{
		"nonce used":        {func() error { return session(&statement.Session{Nonce: used, Server: url}) }, call.ReasonNonce},
		"nonce of our own":  {func() error { return session(&statement.Session{Nonce: "mine", Server: url}) }, call.ReasonNonce},
		"another server":    {func() error { return session(&statement.Session{Nonce: nonce(), Server: "https://desk.example"}) }, call.ReasonServer},
		"another statement": {func() error { return session(&statement.Refusal{Request: "a", Reason: "b"}) }, call.ReasonMalformed},
		"dismissed": {func() error {
			return gone.Open(t.Context(), func(s *statement.Session) ([]byte, error) { return gone.try(s) })
		}, call.ReasonNotOfficer},
		"another authority": {func() error {
			return stranger.Open(t.Context(), func(s *statement.Session) ([]byte, error) { return stranger.try(s) })
		}, string(statement.ReasonSigner)},
		"not a statement": {func() error {
			return c.Open(t.Context(), func(*statement.Session) ([]byte, error) { return []byte("hello"), nil })
		}, string(statement.ReasonMalformed)},
		"too large": {func() error {
			return c.Open(t.Context(), func(*statement.Session) ([]byte, error) { return make([]byte, statement.MaxSize+1), nil })
		}, call.ReasonTooLarge},
	} {
		if err := test.try(); reason(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		if err := session(&statement.Session{Nonce: nonce(), Server: url}); err != nil {
			t.Fatalf("%s: honest control: %v", name, err)
		}
	}
}

// A session decides nothing, wherever it is handed in; and what somebody else
// signed is not handed in with one's own token.
func TestSessionDecidesNothing(t *testing.T) {
	o := office.New(t)
	url := o.Serve(t)
	olga, oskar := newClerk(t, o, url, "olga", identity.RoleOfficer).open(), newClerk(t, o, url, "oskar", identity.RoleOfficer).open()
	if _, err := olga.Submit(t.Context(), olga.sign(&statement.Session{Nonce: o.NewNonce(), Server: url})); reason(err) != call.ReasonMalformed {
		t.Errorf("a session as a decision: %v", err)
	}
	stop := &statement.Suspension{Target: statement.Target{Kind: statement.TargetDevice, Device: identity.DeviceID{1}}, Reason: "lost", Change: statement.NewID()}
	raw := olga.sign(stop)
	if _, err := oskar.Submit(t.Context(), raw); reason(err) != call.ReasonNotOfficer {
		t.Errorf("another's statement: %v", err)
	}
	first, err := olga.Submit(t.Context(), raw)
	must(t, err)
	if again, err := olga.Submit(t.Context(), raw); err != nil || again != first {
		t.Errorf("handed in again: %+v and %+v, %v", first, again, err)
	}
}

// A token is good for its time, for its officer, and under its secret.
func TestToken(t *testing.T) {
	o := office.New(t)
	secret := bytes.Repeat([]byte{7}, 32)
	h := o.Handler(t, "https://desk.example", func(c *desk.Config) { c.Secret = func() []byte { return secret } })
	other := o.Handler(t, "https://desk.example", func(c *desk.Config) { c.Secret = func() []byte { return bytes.Repeat([]byte{8}, 32) } })
	twin := o.Handler(t, "https://desk.example", func(c *desk.Config) { c.Secret = func() []byte { return secret } })
	c := newClerk(t, o, "https://desk.example", "olga", identity.RoleOfficer)
	c.HTTP = &http.Client{Transport: direct{h}}
	start := time.Now()
	o.Now = func() time.Time { return start }
	c.open()
	if c.Session.Expires.Sub(start) > desk.SessionLife || !c.Opened() || c.Session.Officer.Role != identity.RoleOfficer {
		t.Errorf("session %+v", c.Session)
	}
	token := c.Session.Token
	altered := []byte(token)
	altered[20] ^= 1
	cut := token[:len(token)-1]
	for name, test := range map[string]struct {
		h     http.Handler
		token string
		after time.Duration
		want  string
	}{
		"honest":           {h, token, 0, ""},
		"another process":  {twin, token, 0, ""},
		"at the end":       {h, token, desk.SessionLife - time.Second, ""},
		"over":             {h, token, desk.SessionLife, call.ReasonSession},
		"another secret":   {other, token, 0, call.ReasonSession},
		"altered":          {h, string(altered), 0, call.ReasonSession},
		"cut":              {h, cut, 0, call.ReasonSession},
		"padded":           {h, token + "=", 0, call.ReasonSession},
		"a line end in it": {h, token[:10] + "\n" + token[10:], 0, call.ReasonSession},
		"none":             {h, "", 0, call.ReasonSession},
	} {
		o.Now = func() time.Time { return start.Add(test.after) }
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://desk.example"+call.PathRequests, nil)
		r.Header["Authorization"] = []string{"Bearer " + test.token}
		w := httptest.NewRecorder()
		test.h.ServeHTTP(w, r)
		var p call.Problem
		_ = json.Unmarshal(w.Body.Bytes(), &p)
		if p.Reason != test.want || (test.want == "") != (w.Code == http.StatusOK) || test.want != "" && w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	o.Now = func() time.Time { return start }
	o.Dismiss(c.key.Public())
	if _, err := c.Requests(t.Context()); reason(err) != call.ReasonNotOfficer {
		t.Errorf("dismissed while the session is open: %v", err)
	}
}

// direct takes requests to a handler without a network.
type direct struct{ h http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r.RemoteAddr = "192.0.2.1:1"
	d.h.ServeHTTP(w, r)
	return w.Result(), nil
}

// What cannot be asked is a problem document with a code.
func TestBadRequests(t *testing.T) {
	o := office.New(t)
	c := newClerk(t, o, "https://desk.example", "olga", identity.RoleOfficer)
	h := o.Handler(t, "https://desk.example")
	c.HTTP = &http.Client{Transport: direct{h}}
	c.open()
	for _, test := range []struct {
		method, path, content, body string
		status                      int
		reason                      string
	}{
		{"GET", "/desk/v1/", "", "", 404, call.ReasonNotFound},
		{"GET", "/desk/v1/secrets", "", "", 404, call.ReasonNotFound},
		{"DELETE", call.PathRequests, "", "", 404, call.ReasonNotFound},
		{"POST", call.PathRequests, "", "", 404, call.ReasonNotFound},
		{"GET", call.PathRequests + "/unknown", "", "", 404, call.ReasonNotFound},
		{"GET", call.PathRequests + "/a%2F..%2Fb", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathRequests + "/" + strings.Repeat("a", 500), "", "", 400, call.ReasonMalformed},
		{"GET", call.PathRoster + "/Alice", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathRoster + "?before=a", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathRoster + "?after=a&after=b", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathRoster + "?after=" + strings.Repeat("a", 500), "", "", 400, call.ReasonMalformed},
		{"GET", call.PathRoster + "?after=%zz", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathDevices + "/planet/mars", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathDevices + "/serial/9681620", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathProposals + "/00", "", "", 404, call.ReasonNotFound},
		{"GET", call.PathLedger, "", "", 400, call.ReasonMalformed},
		{"GET", call.PathLedger + "?from=-1", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathLedger + "?from=01", "", "", 400, call.ReasonMalformed},
		{"GET", call.PathLedger + "?from=99999999999999999999", "", "", 400, call.ReasonMalformed},
		{"POST", call.PathStatements, "application/json", "{}", 400, call.ReasonMalformed},
		{"POST", call.PathStatements, call.ContentStatement, "", 400, string(statement.ReasonMalformed)},
		{"POST", call.PathStatements, call.ContentStatement, "e30.e30.", 400, string(statement.ReasonMalformed)},
		{"POST", call.PathStatements, call.ContentStatement, strings.Repeat("a", statement.MaxLargeSize+1), 413, call.ReasonTooLarge},
	} {
		r := httptest.NewRequestWithContext(t.Context(), test.method, "https://desk.example"+test.path, strings.NewReader(test.body))
		r.Header.Set("Authorization", "Bearer "+c.Session.Token)
		r.Header.Set("Content-Type", test.content)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var p call.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != test.status || p.Status != test.status || p.Reason != test.reason || w.Header().Get("Content-Type") != call.ContentProblem {
			t.Errorf("%s %.60s: %d %s, want %d %s", test.method, test.path, w.Code, w.Body, test.status, test.reason)
		}
	}
}

// Who asks too much waits: strangers by address, officers by key, whatever
// addresses they use. The audit stream hears of it once a minute.
func TestRateLimit(t *testing.T) {
	o := office.New(t)
	now := time.Now()
	o.Now = func() time.Time { return now }
	h := o.Handler(t, "https://desk.example", func(c *desk.Config) { c.PerSecond, c.Burst = 1, 4 })
	get := func(remote, token, path string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://desk.example"+path, nil)
		r.RemoteAddr = remote
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for i := range 6 {
		want := http.StatusOK
		if i >= 4 {
			want = http.StatusTooManyRequests
		}
		if got := get("[2001:db8::"+string(rune('1'+i))+"]:1", "", call.PathNonce); got != want {
			t.Errorf("request %d: %d, want %d", i, got, want)
		}
	}
	if got := get("192.0.2.7:1", "", call.PathNonce); got != http.StatusOK {
		t.Errorf("another address: %d", got)
	}
	now = now.Add(time.Second)
	if got := get("[2001:db8::1]:1", "", call.PathNonce); got != http.StatusOK {
		t.Errorf("a second later: %d", got)
	}
	if n := len(o.Events()); n != 1 {
		t.Errorf("%d lines in the audit stream, want 1: %v", n, o.Events())
	}
	c := newClerk(t, o, "https://desk.example", "olga", identity.RoleOfficer)
	c.HTTP = &http.Client{Transport: direct{h}}
	c.open()
	for i := range 6 {
		want := http.StatusOK
		if i >= 4 {
			want = http.StatusTooManyRequests
		}
		if got := get("198.51.100."+string(rune('1'+i))+":1", c.Session.Token, call.PathOfficers); got != want {
			t.Errorf("officer's request %d: %d, want %d", i, got, want)
		}
	}
}

// A page of the ledger is bounded in octets, and the roster comes in pages.
func TestPages(t *testing.T) {
	o := office.New(t)
	url := o.Serve(t)
	admin := newClerk(t, o, url, "adam", identity.RoleAdministrator).open()
	for range 10 {
		_, err := admin.Submit(t.Context(), admin.sign(&statement.Appraisal{Change: statement.NewID(), Policy: make([]byte, 500<<10)}))
		must(t, err)
	}
	var all int64
	pages := 0
	for {
		items, err := admin.Items(t.Context(), all)
		must(t, err)
		if len(items.Items) == 0 {
			break
		}
		pages++
		for _, item := range items.Items {
			if item.Index != all {
				t.Fatalf("leaf %d, want %d", item.Index, all)
			}
			all++
		}
	}
	if all != 10 || pages < 2 {
		t.Errorf("%d leaves on %d pages", all, pages)
	}
	list, err := admin.Proposals(t.Context())
	must(t, err)
	if len(list) != 10 || list[0].Body != "" {
		t.Errorf("%d proposals, the first with %d octets", len(list), len(list[0].Body))
	}
	one, err := admin.Proposal(t.Context(), list[0].Digest)
	must(t, err)
	if _, err := one.Parse(); err != nil || one.Needs != 2 || len(one.Signed) != 1 {
		t.Errorf("proposal %d of %d: %v", len(one.Signed), one.Needs, err)
	}
	one.Digest = list[1].Digest
	if _, err := one.Parse(); err == nil {
		t.Error("a body under another's digest is shown")
	}
	for i := range 1001 {
		o.Enlist(t, "p"+string(rune('a'+i/100))+string(rune('a'+i/10%10))+string(rune('a'+i%10)))
	}
	var people []string
	must(t, admin.Roster(t.Context(), func(p *call.Person) error { people = append(people, p.Address.String()); return nil }))
	if len(people) != 1001 || !slices.IsSorted(people) {
		t.Errorf("%d people", len(people))
	}
}

// Who sends a body octet by octet loses the connection and takes nothing else
// with them.
func TestSlowClient(t *testing.T) {
	o := office.New(t)
	server := httptest.NewServer(o.Handler(t, "https://desk.example", func(c *desk.Config) { c.Patience = 200 * time.Millisecond }))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST "+call.PathSession+" HTTP/1.1\r\nHost: desk.example\r\nContent-Type: "+call.ContentStatement+"\r\nContent-Length: 1000\r\n\r\na")
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(answer, []byte(call.ReasonMalformed)) {
		t.Errorf("%q, %v", answer, err)
	}
}

// The authority's own trouble is told to its log, not to the officer.
func TestTroubleIsNotTold(t *testing.T) {
	o := office.New(t)
	var log bytes.Buffer
	broken := broken{o, errors.New("secret trouble in the database")}
	h := o.Handler(t, "https://desk.example", func(c *desk.Config) { c.Backend, c.Log = broken, slog.New(slog.NewTextHandler(&log, nil)) })
	c := newClerk(t, o, "https://desk.example", "olga", identity.RoleOfficer)
	c.HTTP = &http.Client{Transport: direct{h}}
	c.open()
	_, err := c.Officers(t.Context())
	if reason(err) != call.ReasonUnavailable || strings.Contains(err.Error(), "secret") || !strings.Contains(log.String(), "secret trouble") {
		t.Errorf("%v; log %q", err, log.String())
	}
	if _, err := c.Requests(t.Context()); err != nil {
		t.Errorf("honest control: %v", err)
	}
}

// What cannot be written to the audit stream does not happen.
func TestAuditStreamFails(t *testing.T) {
	o := office.New(t)
	fails := false
	h := o.Handler(t, "https://desk.example", func(c *desk.Config) {
		c.Event = func(context.Context, string, ...slog.Attr) error {
			if fails {
				return errors.New("disk full")
			}
			return nil
		}
	})
	c := newClerk(t, o, "https://desk.example", "olga", identity.RoleOfficer)
	c.HTTP = &http.Client{Transport: direct{h}}
	c.open()
	fails = true
	if err := c.Open(t.Context(), func(s *statement.Session) ([]byte, error) { return c.try(s) }); reason(err) != call.ReasonUnavailable {
		t.Errorf("a session that nobody hears of: %v", err)
	}
}

// broken is a backend with a part that fails.
type broken struct {
	desk.Backend
	err error
}

func (b broken) Officers(context.Context) ([]call.Officer, error) { return nil, b.err }

func TestConfigRefuses(t *testing.T) {
	o := office.New(t)
	good := desk.Config{URL: "https://desk.example", Trust: o.Trust, Root: o.RootHash, Backend: o, Log: slog.New(slog.DiscardHandler)}
	if _, err := desk.New(good); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	for name, change := range map[string]func(*desk.Config){
		"http":         func(c *desk.Config) { c.URL = "http://desk.example" },
		"path":         func(c *desk.Config) { c.URL = "https://desk.example/" },
		"no trust":     func(c *desk.Config) { c.Trust = nil },
		"no root":      func(c *desk.Config) { c.Root = [32]byte{} },
		"no backend":   func(c *desk.Config) { c.Backend = nil },
		"no log":       func(c *desk.Config) { c.Log = nil },
		"short secret": func(c *desk.Config) { c.Secret = func() []byte { return make([]byte, 31) } },
	} {
		cfg := good
		change(&cfg)
		if _, err := desk.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
