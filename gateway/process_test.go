// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/freeport"
	"valise/internal/testenv"
)

// process is the real daemon with its TLS key in a real PKCS#11 token.
type process struct {
	t      *testing.T
	binary string
	wrap   []string // what runs the daemon; nil: nothing does
	config string
	env    []string
	cmd    *exec.Cmd
	log    lockedBuffer
	dir    string
}

// lockedBuffer may be read while a process still writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newProcess prepares token, key, certificate and configuration as an operator
// would, and returns the daemon, not started, and a handle for devices.
func newProcess(t *testing.T) (*process, *testGateway) {
	t.Helper()
	token := testenv.SoftHSM(t)
	p := &process{t: t, binary: testenv.Build(t, "./cmd/valise-gatewayd"), env: token.Env(), dir: t.TempDir()}
	p.config = filepath.Join(p.dir, "gateway.toml")
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	a := newAuthority(t, "interieur.example")
	writePEM(t, filepath.Join(p.dir, "root.pem"), a.root.Raw)
	text := fmt.Sprintf(`listen = [%q]
name = "127.0.0.1"
domain = %q
roots = "root.pem"
key = %q
pin_source = %q
certificate = "gateway.pem"
data = "data"
audit = "audit.jsonl"
admin = "127.0.0.1:0"
deny = "deny.list"
[limits]
messages_per_second = 1e6
burst = 1000000
journal_bytes = 4194304
`, address, a.domain, token.URI("object=tls"), token.PINFile)
	for name, content := range map[string]string{p.config: text, filepath.Join(p.dir, "deny.list"): "# nobody\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.certify(a)
	t.Cleanup(p.kill)
	return p, &testGateway{authority: a, address: address, dir: filepath.Join(p.dir, "data")}
}

// certify runs csr twice, which must use one key, and has it certified.
func (p *process) certify(a *authority) {
	p.t.Helper()
	request := func() *x509.CertificateRequest {
		out := p.run("csr", "--algorithm", "P-256")
		block, _ := pem.Decode(out)
		if block == nil {
			p.t.Fatalf("csr printed %q", out)
		}
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || csr.CheckSignature() != nil {
			p.t.Fatalf("csr: %v", err)
		}
		return csr
	}
	first, csr := request(), request()
	if !bytes.Equal(first.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
		p.t.Fatal("csr made a second key")
	}
	p.issue(a, csr)
}

// issue puts a certificate of one authority for a request into the gateway's file.
func (p *process) issue(a *authority, csr *x509.CertificateRequest) {
	p.t.Helper()
	profile := identity.GatewayProfile{
		Name: csr.IPAddresses[0].String(), PublicKey: csr.PublicKey, Tier: identity.TierWitnessed, Serial: newSerial(p.t),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
	}
	template, err := profile.Template()
	if err != nil {
		p.t.Fatal(err)
	}
	leaf := sign(p.t, template, a.issuer, csr.PublicKey, a.issuerKey)
	writePEM(p.t, filepath.Join(p.dir, "gateway.pem"), leaf.Raw, a.issuer.Raw)
}

func (p *process) run(command string, args ...string) []byte {
	p.t.Helper()
	cmd := exec.Command(p.binary, append([]string{command, "--config", p.config}, args...)...)
	cmd.Env = append(os.Environ(), p.env...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", command, err, errs.String())
	}
	return out
}

func (p *process) start() {
	p.t.Helper()
	args := append(slices.Clone(p.wrap), p.binary, "serve", "--config", p.config)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the daemon as a power switch would, as far as a process can tell.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func writePEM(t *testing.T, path string, certs ...[]byte) {
	t.Helper()
	var out []byte
	for _, der := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// reach connects, again and again while the daemon is on its way up.
func (d *testDevice) reach(ctx context.Context, begin bool, cursor uint64) error {
	var err error
	for ctx.Err() == nil {
		var l *link
		if l, err = d.tryConnectWithin(2*time.Second, begin, cursor); err == nil {
			d.link = l
			return nil
		}
	}
	return fmt.Errorf("%s: not connected in time: %w", d.local, err)
}
