// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/freeport"
	"valise/internal/testenv"
)

const domain = "interieur.example"

// A bureau is a directory with a configuration, and the command to run in it.
type bureau struct {
	t       *testing.T
	program string
	dir     string
	config  string
	env     []string
	url     string
	admin   string
	listen  string // if it is not the URL's
	vendor  *enrolltest.Vendor
	daemon  *exec.Cmd
}

// token is a token of testenv, behind a server or not.
type token interface {
	URI(...string) string
	Env() []string
}

func free(t *testing.T) string {
	t.Helper()
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func newBureau(t *testing.T, k token, pinFile string) *bureau {
	t.Helper()
	b := &bureau{
		t: t, program: testenv.Build(t, "./cmd/valise-enrolld"), dir: t.TempDir(), env: append(os.Environ(), k.Env()...),
		vendor: enrolltest.NewVendor(t), admin: free(t),
	}
	address := free(t)
	b.url, b.config = "https://"+address, filepath.Join(b.dir, "enrolld.toml")
	b.write("vendor.pem", string(b.vendor.PEM()))
	b.write("people.csv", "address,name,unit,clearance\nalice@interieur.example,Alice,Cabinet,1.2.3:unclassified+secret\nbob@interieur.example,Bob,,\n")
	b.write("enrolld.toml", fmt.Sprintf(`
domain = %q
url = %q
listen = %q
admin = %q
data = "data"
audit = "audit.jsonl"
[token]
uri = %q
pin-source = %q
algorithm = "P-256"
[endorsements]
built-in = false
roots = ["vendor.pem"]
[limits]
per-second = 10000
burst = 10000
`, domain, b.url, address, b.admin, k.URI(), pinFile))
	return b
}

func (b *bureau) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// run runs one command to its end; the configuration comes behind its name.
func (b *bureau) run(args ...string) (stdout string, err error) {
	b.t.Helper()
	cmd := exec.Command(b.program, append(args, "--config", b.config)...)
	cmd.Dir, cmd.Env = b.dir, b.env
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, diag.String())
	}
	return out.String(), err
}

func (b *bureau) must(args ...string) string {
	b.t.Helper()
	out, err := b.run(args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// start starts the daemon and returns when it listens.
func (b *bureau) start() {
	b.t.Helper()
	b.daemon = exec.Command(b.program, "serve", "--config", b.config)
	b.daemon.Dir, b.daemon.Env = b.dir, b.env
	pipe, err := b.daemon.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.daemon.Start(); err != nil {
		b.t.Fatal(err)
	}
	listening := make(chan bool, 1)
	var last string // read after listening is closed
	go func() {
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			last = lines.Text()
			if strings.Contains(lines.Text(), `"msg":"listening"`) {
				listening <- true
			}
		}
		close(listening)
	}()
	b.t.Cleanup(func() { b.stop(syscall.SIGKILL) })
	select {
	case ok := <-listening:
		if !ok {
			b.t.Fatalf("the daemon ended at once: %s", last)
		}
	case <-time.After(30 * time.Second):
		b.t.Fatal("the daemon does not listen")
	}
}

// stop ends the daemon and returns how it ended.
func (b *bureau) stop(sig syscall.Signal) error {
	if b.daemon == nil {
		return nil
	}
	_ = b.daemon.Process.Signal(sig)
	err := b.daemon.Wait()
	b.daemon = nil
	return err
}

func (b *bureau) root() *x509.Certificate {
	b.t.Helper()
	block, _ := pem.Decode([]byte(b.must("root")))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		b.t.Fatal(err)
	}
	return cert
}

func (b *bureau) client(root *x509.Certificate) *enrolltest.Client {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	b.t.Cleanup(hc.CloseIdleConnections)
	return enrolltest.NewClient(b.t, hc, b.url)
}

func (b *bureau) invite(name string) identity.Invitation {
	b.t.Helper()
	inv, err := identity.ParseInvitation(b.must("invite", name+"@"+domain))
	if err != nil {
		b.t.Fatal(err)
	}
	return inv
}

func (b *bureau) health() (int, string) {
	res, err := http.Get("http://" + b.admin + "/healthz")
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, fmt.Sprint(string(body), err)
}

// until asks again and again; a deadline ends it.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(90 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited too long: %s", what)
		case <-tick.C:
		}
	}
}

func issuedTo(t *testing.T, root *x509.Certificate, chain [][]byte, address string) {
	t.Helper()
	device, err := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{root}}).Device(chain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if device.Address.String() != address {
		t.Errorf("issued for %s", device.Address)
	}
}

// A first day: from nothing to a person's and a gateway's certificate.
func TestFirstDay(t *testing.T) {
	soft := testenv.SoftHSM(t)
	b := newBureau(t, soft, soft.PINFile)
	text, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	b.write("enrolld.toml", strings.Replace(string(text), "algorithm = \"P-256\"\n", "", 1)) // the default, P-384
	if _, err := b.run("invite", "alice@"+domain); err == nil || !strings.Contains(err.Error(), "run init first") {
		t.Errorf("before init: %v", err)
	}
	if out := b.must("init"); !strings.Contains(out, "root sha256 ") {
		t.Errorf("init printed %q", out)
	}
	if _, err := b.run("init"); err == nil || !strings.Contains(err.Error(), "init runs once") {
		t.Errorf("a second init: %v", err)
	}
	if out := b.must("roster", "import", "people.csv"); out != "2 people read, 2 new or changed\n" {
		t.Errorf("import printed %q", out)
	}
	if out := b.must("roster", "list"); !strings.Contains(out, "1.2.3:unclassified+secret") {
		t.Errorf("list printed %q", out)
	}
	if _, err := b.run("invite", "carol@"+domain); err == nil || !strings.Contains(err.Error(), "not on the roster") {
		t.Errorf("a stranger: %v", err)
	}
	b.start()
	root := b.root()
	inv := b.invite("alice")
	if inv.Root != sha256.Sum256(root.Raw) || inv.URL != b.url {
		t.Errorf("the invitation names root %x at %s", inv.Root, inv.URL)
	}
	chain := b.client(root).Enroll(inv, b.vendor.Card(t, enrolltest.CardConfig{}))
	issuedTo(t, root, chain, "alice@interieur.example")
	if r := b.client(root).Register(inv); r.Reason != "invitation_used" {
		t.Errorf("the invitation again: %d %s", r.Status, r.Body)
	}
	b.gateway(root)
	if out := b.must("list"); strings.Count(out, "issued") < 3 || !strings.Contains(out, "alice@interieur.example") {
		t.Errorf("list printed\n%s", out)
	}
	if code, body := b.health(); code != 200 || !strings.Contains(body, `"hsm":"ok"`) {
		t.Errorf("%d %s", code, body)
	}
	b.metrics(`valise_enroll_issued_total{kind="device"} 1`, `valise_enroll_refused_total{reason="invitation_used"} 1`,
		`valise_enroll_orders{status="valid"} 1`, `valise_health{check="hsm"} 1`, "valise_enroll_store_retries_total 0")
	b.audit("authority founded", "roster imported", "invitation made", "account made", "order made", "evidence accepted",
		"order finalized", "issuing", "certificate issued", "enrollment refused")
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func (b *bureau) gateway(root *x509.Certificate) {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	csr := enrolltest.CSR(b.t, key)
	b.write("gateway.csr", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})))
	var chain [][]byte
	out := []byte(b.must("gateway-cert", "--csr", "gateway.csr", "--name", "gw.interieur.example,127.0.0.1"))
	for block, rest := pem.Decode(out); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{root}})
	for _, name := range []string{"gw.interieur.example", "127.0.0.1"} {
		if _, err := trust.Gateway(chain, name, time.Now()); err != nil {
			b.t.Errorf("gateway %s: %v", name, err)
		}
	}
	b.write("not.csr", "junk")
	if _, err := b.run("gateway-cert", "--csr", "not.csr", "--name", "gw.interieur.example"); err == nil {
		b.t.Error("junk got a certificate")
	}
}

func (b *bureau) metrics(lines ...string) {
	b.t.Helper()
	res, err := http.Get("http://" + b.admin + "/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, line := range lines {
		if !strings.Contains(string(body), line+"\n") {
			b.t.Errorf("/metrics lacks %s", line)
		}
	}
}

func (b *bureau) audit(events ...string) {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, "audit.jsonl"))
	if err != nil {
		b.t.Fatal(err)
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var line struct{ Event, Time string }
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			b.t.Fatal(err)
		}
		seen[line.Event] = line.Time != ""
	}
	for _, event := range events {
		if !seen[event] {
			b.t.Errorf("the audit stream lacks %q", event)
		}
	}
}

// The daemon is killed while the HSM is away and orders wait; then the HSM comes back,
// before or after the daemon does. Nothing is lost and nothing issued twice.
func TestKillsAndTokenOutage(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	b := newBureau(t, server, server.PINFile)
	b.must("init")
	b.must("roster", "import", "people.csv")
	b.start()
	root := b.root()
	card, c := b.vendor.Card(t, enrolltest.CardConfig{}), b.client(root)
	if r := c.Register(b.invite("alice")); r.Status != http.StatusCreated {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	o, _ := c.NewOrder(card.ID(t).String())
	if ch, r := c.Attest(o, card.Answer(t, c.KeyAuthorization(o))); ch == nil || ch.Status != "valid" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	// The HTTPS key is in the token as well: what is open stays open, so the order
	// goes over the connection that the client has.
	server.Kill(t)
	done, r := c.Finish(o, enrolltest.CSR(t, card.Key))
	if done == nil || done.Status != "processing" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	until(t, "/healthz turns red", func() bool {
		code, body := b.health()
		return code == http.StatusServiceUnavailable && !strings.Contains(body, `"hsm":"ok"`) && strings.Contains(body, `"store":"ok"`)
	})
	t.Run("recovery without a restart", func(t *testing.T) {
		server.Start(t)
		until(t, "/healthz turns green", func() bool { code, _ := b.health(); return code == 200 })
		until(t, "the order is finished", func() bool { c.Post(o.URL, nil).Into(t, o); return o.Status == "valid" })
		issuedTo(t, root, c.Fetch(o), "alice@interieur.example")
	})
	t.Run("killed in between", func(t *testing.T) {
		bob := b.client(root)
		if r := bob.Register(b.invite("bob")); r.Status != http.StatusCreated {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		second := b.vendor.Card(t, enrolltest.CardConfig{})
		o, _ := bob.NewOrder(second.ID(t).String())
		bob.Attest(o, second.Answer(t, bob.KeyAuthorization(o)))
		server.Kill(t)
		if done, r := bob.Finish(o, enrolltest.CSR(t, second.Key)); done == nil || done.Status != "processing" {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		_ = b.stop(syscall.SIGKILL)
		server.Start(t)
		b.start()
		until(t, "the order is finished after the restart", func() bool { bob.Post(o.URL, nil).Into(t, o); return o.Status == "valid" })
		issuedTo(t, root, bob.Fetch(o), "bob@interieur.example")
	})
	// server, alice, bob: a leaf each, and each is issued.
	if out := b.must("list"); strings.Count(out, "\n") != 4 || strings.Contains(out, "not signed yet") {
		t.Errorf("list printed\n%s", out)
	}
}

func TestConfiguration(t *testing.T) {
	good := "domain = \"interieur.example\"\nurl = \"https://enroll.interieur.example\"\ndata = \"d\"\naudit = \"a\"\n" +
		"[token]\nuri = \"pkcs11:token=x?module-path=/x.so\"\npin-source = \"p\"\n"
	dir := t.TempDir()
	load := func(text string) (*Config, error) {
		path := filepath.Join(dir, "c.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return loadConfig(path)
	}
	cfg, err := load(good)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Data != filepath.Join(dir, "d") || cfg.Listen != ":8443" || !cfg.Endorsements.BuiltIn || cfg.Device.Approvals != 0 {
		t.Errorf("got %+v", cfg)
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":      {good + "pin = \"1\"\n", `line 8: unknown key "token.pin"`},
		"approvals":        {good + "[device]\napprovals = -1\n", "negative"},
		"appraisal":        {good + "[appraisal]\nmin_firmware = \"five\"\n", "min_firmware"},
		"unknown rule":     {good + "[appraisal]\nmin_firmwares = \"5.7.0\"\n", "unknown key"},
		"no roots":         {good + "[endorsements]\nbuilt-in = false\n", "nobody can enroll"},
		"piv token":        {strings.Replace(good, "pkcs11:", "piv:", 1), "PKCS#11"},
		"same labels":      {good + "root-key = \"k\"\nissuer-key = \"k\"\n", "a label of its own"},
		"same labels too":  {good + "ledger-key = \"valise-bulletin\"\n", "a label of its own"},
		"no label":         {good + "bulletin-key = \"\"\n", "bulletin-key is not set"},
		"root token":       {good + "[root-token]\nuri = \"pkcs11:token=r?module-path=/x.so\"\n", "belong together"},
		"same token":       {good + "[root-token]\nuri = \"pkcs11:token=x?module-path=/x.so\"\npin-source = \"p\"\n", "the token of all others"},
		"TLS on a card":    {good + "[tls-token]\nuri = \"piv:\"\npin-source = \"p\"\n", "tls-token.uri"},
		"TLS with root":    {good + "[root-token]\nuri = \"pkcs11:token=r?module-path=/x.so\"\npin-source = \"p\"\n[tls-token]\nuri = \"pkcs11:token=r?module-path=/x.so\"\npin-source = \"p\"\n", "in a safe"},
		"root on a card":   {good + "[root-token]\nuri = \"piv:\"\npin-source = \"p\"\n", "root-token.uri"},
		"heartbeat":        {good + "[bulletin]\nheartbeat = \"10ms\"\n", "bulletin.heartbeat"},
		"rare heartbeat":   {good + "[bulletin]\nheartbeat = \"169h\"\n", "bulletin.heartbeat"},
		"no heartbeat":     {good + "[bulletin]\nheartbeat = \"0s\"\n", "bulletin.heartbeat"},
		"long validity":    {good + "[device]\nvalidity = \"20000h\"\n", "device.validity"},
		"short validity":   {good + "[device]\nvalidity = \"1ns\"\n", "device.validity"},
		"gateway validity": {good + "[gateway]\nvalidity = \"200000h\"\n", "gateway.validity"},
		"profile":          {good + "[device]\nprofile = \"A b\"\n", "device.profile"},
		"NaN":              {good + "[limits]\nper-second = nan\n", "limits.per-second"},
		"infinite":         {good + "[limits]\nper-second = inf\n", "limits.per-second"},
		"negative":         {good + "[limits]\nper-second = -1.0\n", "limits.per-second"},
		"burst":            {good + "[limits]\nburst = -1\n", "limits.burst"},
		"no connection":    {good + "[limits]\nconnections-per-address = 0\n", "connections-per-address"},
		"officers' PIN":    {good + "[officer-appraisal]\npin_policies = [\"once\"]\n", "officer-appraisal"},
		"algorithm":        {good + "algorithm = \"RSA\"\n", "token.algorithm"},
		"http":             {strings.Replace(good, "https:", "http:", 1), "url:"},
		"path in url":      {strings.Replace(good, "enroll.interieur.example", "enroll.interieur.example/acme", 1), "url:"},
		"upper case":       {strings.Replace(good, "\"interieur", "\"Interieur", 1), "domain:"},
		"no audit":         {strings.Replace(good, "audit = \"a\"\n", "", 1), "audit is not set"},
		"no PIN file":      {strings.Replace(good, "pin-source = \"p\"\n", "", 1), "token.pin-source is not set"},
		"approvals string": {good + "[device]\napprovals = \"0\"\n", "line 9"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestQR(t *testing.T) {
	var b bytes.Buffer
	if err := printQR(&b, "valise1:"+strings.Repeat("A", 250)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	width := len([]rune(lines[0]))
	for i, line := range lines {
		if len([]rune(line)) != width {
			t.Errorf("line %d has another width", i)
		}
	}
	if !strings.Contains(b.String(), "█▀▀▀▀▀█") {
		t.Error("no finder pattern")
	}
}
