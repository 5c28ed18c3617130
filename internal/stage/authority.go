// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"valise/internal/freeport"
)

// An Authority is an enrollment authority with its keys in a token of its own.
type Authority struct {
	Domain    string
	Root      string // PEM file of the root's certificate
	Audit     string // file of the audit stream
	URL       string
	Token     *Token
	RootToken *Token     // of a ministry
	Officers  []*Officer // of a ministry; an authority that has none approves nothing

	stage   *Stage
	name    string
	config  string
	admin   string
	process *Process
}

// NewAuthority founds an authority without officers, imports its roster and starts
// it. Evidence under the attestation roots (PEM files) is accepted besides the
// vendors'.
func (s *Stage) NewAuthority(ctx context.Context, name, domain string, roster []string, attestationRoots ...string) (*Authority, error) {
	a, port, err := s.prepare(ctx, name, domain)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(a.config, []byte(a.toml(port, attestationRoots)), 0o600); err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, "init"); err != nil {
		return nil, err
	}
	if err := a.importRoster(ctx, filepath.Join(filepath.Dir(a.config), "people.csv"), roster); err != nil {
		return nil, err
	}
	return a, a.Start(ctx)
}

// prepare makes a folder, a token and an address.
func (s *Stage) prepare(ctx context.Context, name, domain string) (*Authority, int, error) {
	dir := filepath.Join(s.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, 0, err
	}
	token, err := s.NewToken(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	port, err := freeport.Take()
	if err != nil {
		return nil, 0, err
	}
	admin, err := freeport.Take()
	if err != nil {
		return nil, 0, err
	}
	return &Authority{
		admin:  fmt.Sprintf("127.0.0.1:%d", admin),
		Domain: domain, Token: token, stage: s, name: name, config: filepath.Join(dir, "enrolld.toml"),
		Root: filepath.Join(dir, "data", "root.pem"), Audit: filepath.Join(dir, "audit.jsonl"),
		URL: fmt.Sprintf("https://localhost:%d", port),
	}, port, nil
}

func (a *Authority) data() string { return filepath.Dir(a.Root) }

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}

func (a *Authority) toml(port int, roots []string) string {
	return fmt.Sprintf(`domain = %q
url = %q
listen = "127.0.0.1:%d"
data = "data"
audit = "audit.jsonl"
admin = %q

[token]
uri = "pkcs11:token=%s?module-path=%s"
pin-source = %q

[endorsements]
roots = [%s]

[appraisal]
# Virtual cards say that they have firmware 5.4.3; below 5.7.0 only configured
# roots are accepted, never a vendor's.
min_firmware = "5.4.3"
`, a.Domain, a.URL, port, a.admin, a.Token.Label, a.Token.Module, a.stage.pinFile(), quoted(roots)) + a.stage.syslog()
}

func (a *Authority) importRoster(ctx context.Context, file string, people []string) error {
	lines := append([]string{"address,name,unit,clearance"}, people...)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	_, err := a.run(ctx, "roster", "import", file)
	return err
}

// Start starts the daemon; it returns when devices can enroll.
func (a *Authority) Start(ctx context.Context) (err error) {
	a.process, err = a.stage.ps.start(a.name, a.Token.Env, a.stage.command("valise-enrolld"), "serve", "--config", a.config)
	if err != nil {
		return err
	}
	return a.process.accepts(ctx, strings.TrimPrefix(a.URL, "https://"))
}

// Metrics is the page that the daemon publishes for operators.
func (a *Authority) Metrics(ctx context.Context) (string, error) { return metricsOf(ctx, a.admin) }

// Config is the configuration file.
func (a *Authority) Config() string { return a.config }

// Process is the running daemon.
func (a *Authority) Process() *Process { return a.process }

// Invite makes an invitation for one device of a person: by an officer, or by the
// operator where there is none.
func (a *Authority) Invite(ctx context.Context, address string) (string, error) {
	if len(a.Officers) == 0 {
		out, err := a.run(ctx, "invite", address)
		return strings.TrimSpace(out), err
	}
	file := filepath.Join(filepath.Dir(a.config), "invitation-"+address)
	if _, err := a.deciders()[0].Sign(ctx, "invite", address, "--out", file); err != nil {
		return "", err
	}
	code, err := os.ReadFile(file)
	return strings.TrimSpace(string(code)), err
}

// CertifyGateway issues a gateway's certificate for a CSR in a file. In a ministry it
// does not come until two officers have approved it.
func (a *Authority) CertifyGateway(ctx context.Context, csr, name string) (string, error) {
	if len(a.Officers) > 0 {
		if err := a.approveGateway(ctx, csr, name); err != nil {
			return "", err
		}
	}
	return a.run(ctx, "gateway-cert", "--csr", csr, "--name", name)
}

// exitWaiting is the status of a request that waits for officers.
const exitWaiting = 3

func (a *Authority) approveGateway(ctx context.Context, csr, name string) error {
	_, err := a.run(ctx, "gateway-cert", "--csr", csr, "--name", name)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != exitWaiting {
		return fmt.Errorf("gateway-cert should have waited for officers: %w", err)
	}
	two := a.deciders()
	out, err := two[0].Desk(ctx, "gateways", "--json")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		var g struct{ Key string }
		if err := json.Unmarshal([]byte(line), &g); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		if _, err := two[0].Sign(ctx, "gateways", "approve", g.Key); err != nil {
			return err
		}
	}
	return two[1].Agree(ctx)
}

func (a *Authority) run(ctx context.Context, args ...string) (string, error) {
	return Output(ctx, a.Token.Env, a.stage.command("valise-enrolld"), append(args, "--config", a.config)...)
}

// accepts waits until the process accepts TCP connections.
func (p *Process) accepts(ctx context.Context, address string) error {
	_, err := Poll(ctx, p.name+" to listen", func() (struct{}, bool, error) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return struct{}{}, true, conn.Close()
		}
		return struct{}{}, false, p.ended()
	})
	return err
}
