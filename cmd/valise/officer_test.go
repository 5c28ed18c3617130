// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"valise/enroll/desk/call"
	"valise/identity"
	inmemory "valise/internal/testenv/office"
	"valise/statement"
)

// answers is a desk that says what a test wants.
type answers map[string]any

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if v, ok := a[r.URL.Path]; ok {
		_ = json.NewEncoder(w).Encode(v)
	} else {
		w.WriteHeader(http.StatusNotFound)
	}
	return w.Result(), nil
}

func newBureau(t *testing.T, a answers) *bureau {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return &bureau{env: &env{home: t.TempDir(), out: out}, desk: &call.Client{URL: "https://desk.example", HTTP: &http.Client{Transport: a}}}
}

// What the desk shows and what it wants signed must be the same request: a desk in
// the wrong hands cannot have one person approved under another's name.
func TestDeskThatLies(t *testing.T) {
	o := inmemory.New(t)
	honest, other := o.Order(t, "alice"), o.Order(t, "mallory")
	path := call.PathRequests + "/" + honest.ID
	for name, test := range map[string]struct {
		change func(r *call.Request)
		ok     bool
	}{
		"honest":          {func(*call.Request) {}, true},
		"another's body":  {func(r *call.Request) { r.Approval = other.Approval }, false},
		"another request": {func(r *call.Request) { *r = *other }, false},
		"another name":    {func(r *call.Request) { r.Address = other.Address }, false},
		"another device":  {func(r *call.Request) { r.Device = other.Device }, false},
		"a wrong digest":  {func(r *call.Request) { s := *r.Approval; s.Digest = other.Approval.Digest; r.Approval = &s }, false},
		"another kind": {func(r *call.Request) {
			r.Approval = signable(t, &statement.Dismissal{Change: statement.NewID(), Address: r.Address, Reason: "a"})
		}, false},
		"a session instead": {func(r *call.Request) { r.Approval = signable(t, &statement.Session{Nonce: "a", Server: "b"}) }, false},
	} {
		r := *honest
		test.change(&r)
		b := newBureau(t, answers{path: r})
		got, p, err := b.find(t.Context(), honest.ID)
		var a *statement.Approval
		if err == nil && p == nil {
			a, err = b.showRequest(got)
		}
		if (err == nil && a != nil) != test.ok {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// The same for proposals: what is signed is what was asked for by its digest, and
// never a session or an approval in disguise.
func TestProposalThatLies(t *testing.T) {
	honest := signable(t, &statement.Resumption{Target: statement.Target{Kind: statement.TargetDevice, Device: identity.DeviceID{1}}, Reason: "found", Change: statement.NewID()})
	other := signable(t, &statement.Resumption{Target: statement.Target{Kind: statement.TargetDevice, Device: identity.DeviceID{2}}, Reason: "found", Change: statement.NewID()})
	session := signable(t, &statement.Session{Nonce: "a", Server: "b"})
	approval := inmemory.New(t).Order(t, "alice").Approval
	for name, test := range map[string]struct {
		asked string
		given call.Signable
		ok    bool
	}{
		"honest":         {honest.Digest, *honest, true},
		"another":        {honest.Digest, *other, false},
		"another's body": {honest.Digest, call.Signable{Kind: other.Kind, Body: other.Body, Digest: honest.Digest}, false},
		"another kind":   {honest.Digest, call.Signable{Kind: statement.KindSuspension, Body: honest.Body, Digest: honest.Digest}, false},
		"a session":      {session.Digest, *session, false},
		"an approval":    {approval.Digest, *approval, false},
	} {
		b := newBureau(t, answers{call.PathProposals + "/" + test.asked: call.Proposal{Signable: test.given}})
		_, p, err := b.find(t.Context(), test.asked)
		if err == nil {
			_, err = b.proposed(p)
		}
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A desk cannot have a session made for another server than the one that the
// settings name.
func TestSessionIsForTheServerOfTheSettings(t *testing.T) {
	b := newBureau(t, answers{call.PathNonce: call.Nonce{Nonce: "n", Server: "https://other.example"}})
	var signed *statement.Session
	_ = b.desk.Open(t.Context(), func(s *statement.Session) ([]byte, error) { signed = s; return []byte("a"), nil })
	if signed == nil || signed.Server != "https://desk.example" || signed.Nonce != "n" {
		t.Errorf("signed %+v", signed)
	}
}

func signable(t *testing.T, b statement.Body) *call.Signable {
	t.Helper()
	s, err := call.NewSignable(b)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// A session is kept for its desk, root and key, in a file that only its owner reads.
func TestCachedSession(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	run := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", run)
	o := inmemory.New(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func() *bureau {
		b := newBureau(t, nil)
		b.chain, b.URL, b.Root = o.Appoint(t, "olga", identity.RoleOfficer, key.Public()), "https://desk.example", "ab"
		return b
	}
	b := make()
	b.desk.Session = call.Session{Token: "secret", Expires: time.Now().Add(time.Minute)}
	if err := b.keepSession(); err != nil {
		t.Fatal(err)
	}
	path, err := b.sessionPath()
	if err != nil || !strings.HasPrefix(path, run) {
		t.Fatalf("%s, %v", path, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if got := make().cachedSession(); got.Token != "secret" {
		t.Errorf("honest control: %+v", got)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(b *bureau){
		"another desk":    func(b *bureau) { b.URL = "https://other.example" },
		"another root":    func(b *bureau) { b.Root = "cd" },
		"readable by all": func(*bureau) { os.Chmod(path, 0o644) },
		"not JSON":        func(*bureau) { os.WriteFile(path, []byte("hello"), 0o600) },
		"a link":          func(*bureau) { os.Rename(path, path+"2"); os.Symlink(path+"2", path) },
		"another's": func(*bureau) {
			os.WriteFile(path, []byte(strings.Replace(string(data), `"root":"ab"`, `"root":"cd"`, 1)), 0o600)
		},
	} {
		other := make()
		change(other)
		if got := other.cachedSession(); got.Token != "" {
			t.Errorf("%s: %+v", name, got)
		}
		os.Remove(path)
		if err := replaceFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.forgetSession()
	if _, err := os.Stat(path); err == nil {
		t.Error("the session is still there")
	}
	// A runtime folder that others can enter holds no session.
	if err := os.Chmod(filepath.Join(run, "valise"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.keepSession(); err == nil {
		t.Error("kept where others can come")
	}
}

func TestOfficerSettingsRefuse(t *testing.T) {
	home := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(home, officerFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := "url = \"https://desk.example\"\nroot = \"" + strings.Repeat("ab", 32) + "\"\ncard = \"piv:9c\"\ncertificate = \"officer.pem\"\n"
	write(good)
	if s, err := loadOfficer(home); err != nil || s.root == [32]byte{} || s.Certificate != filepath.Join(home, "officer.pem") {
		t.Fatalf("honest control: %+v, %v", s, err)
	}
	for name, text := range map[string]string{
		"unknown key": good + "rot = 1\n",
		"short root":  strings.Replace(good, "abab", "ab", 1),
		"no root":     "url = \"https://desk.example\"\n",
		"no TOML":     "hello",
		"too long":    good + strings.Repeat("#", maxSettingsFile),
	} {
		write(text)
		if s, err := loadOfficer(home); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestParseChain(t *testing.T) {
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}))
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}))
	if chain, err := parseChain("a", []byte("text\n"+cert+cert)); err != nil || len(chain) != 2 {
		t.Errorf("%d, %v", len(chain), err)
	}
	for name, text := range map[string]string{"empty": "", "a key": cert + key, "text": "hello"} {
		if chain, err := parseChain("a", []byte(text)); err == nil {
			t.Errorf("%s: %x", name, chain)
		}
	}
}

// Two questions in one command find one answer each in what is piped in.
func TestReadLine(t *testing.T) {
	in := strings.NewReader("y\nno\nend")
	for _, want := range []string{"y", "no", "end"} {
		if got, _ := readLine(in); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTargetFlags(t *testing.T) {
	hex := strings.Repeat("1", 64)
	for name, test := range map[string]struct {
		flags targetFlags
		want  string
	}{
		"device":       {targetFlags{Device: hex}, statement.TargetDevice},
		"person":       {targetFlags{Person: " Alice@Interieur.example"}, statement.TargetPerson},
		"officer":      {targetFlags{Officer: "olga@interieur.example"}, statement.TargetOfficer},
		"serial":       {targetFlags{Serial: "9681620", Format: "yubico-piv"}, statement.TargetSerial},
		"root":         {targetFlags{Root: hex}, statement.TargetRoot},
		"no number":    {targetFlags{Serial: "96 81", Format: "yubico-piv"}, ""},
		"no address":   {targetFlags{Person: "alice"}, ""},
		"no digest":    {targetFlags{Root: "ab"}, ""},
		"short device": {targetFlags{Device: "ab"}, ""},
	} {
		target, err := test.flags.target()
		if (err == nil) != (test.want != "") || err == nil && target.Kind != test.want {
			t.Errorf("%s: %+v, %v", name, target, err)
		}
	}
	target, err := (&targetFlags{Serial: "9681620", Format: "yubico-piv"}).target()
	if err != nil || target.Serial != identity.SerialHash("yubico-piv", 9681620) {
		t.Errorf("%+v, %v", target, err)
	}
}
