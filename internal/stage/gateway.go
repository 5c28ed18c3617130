// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"valise/internal/freeport"
)

// A Gateway is a gateway with its TLS key in a token of its own.
type Gateway struct {
	Address  string // HOST:PORT for devices
	Audit    string // file of the audit stream
	Database string // file of the store, where that is the gateway's own
	Node     string // its name among several on the stage's database; empty: it has its database to itself
	Bin      string // folder of another valise-gatewayd than the stage's; empty: that
	Token    *Token

	stage   *Stage
	name    string
	dir     string
	config  string
	admin   string
	bundle  string // where a signed policy bundle is laid down; empty: there are no officers to sign one
	process *Process
}

// NewGateway makes a gateway's key and certificate, and starts it.
func (s *Stage) NewGateway(ctx context.Context, authority *Authority) (*Gateway, error) {
	return s.newGateway(ctx, authority, "gateway", "")
}

// NewNodes makes gateways that are nodes on the stage's Database, and starts them: each has
// a key, a certificate, a data folder and an address of its own.
func (s *Stage) NewNodes(ctx context.Context, authority *Authority, names ...string) ([]*Gateway, error) {
	nodes := make([]*Gateway, len(names))
	for i, name := range names {
		var err error
		if nodes[i], err = s.newGateway(ctx, authority, "gateway-"+name, name); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// sharedFiles is the folder that nodes share.
func (s *Stage) sharedFiles() string { return filepath.Join(s.Dir, "files") }

func (s *Stage) newGateway(ctx context.Context, authority *Authority, name, node string) (*Gateway, error) {
	g, err := s.PrepareGateway(ctx, authority, name, node)
	if err != nil {
		return nil, err
	}
	return g, g.Start(ctx)
}

// PrepareGateway makes all that a gateway needs, and does not start it.
func (s *Stage) PrepareGateway(ctx context.Context, authority *Authority, name, node string) (*Gateway, error) {
	dir := filepath.Join(s.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if node != "" {
		if err := os.MkdirAll(s.sharedFiles(), 0o700); err != nil {
			return nil, err
		}
	}
	token, err := s.NewToken(ctx, name)
	if err != nil {
		return nil, err
	}
	udp, err := freeport.Take()
	if err != nil {
		return nil, err
	}
	tcp, err := freeport.Take()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		Address: fmt.Sprintf("localhost:%d", udp), Node: node, Token: token, stage: s, name: name, dir: dir,
		Audit: filepath.Join(dir, "audit.jsonl"), Database: filepath.Join(dir, "data", "relay.db"),
		config: filepath.Join(dir, "gateway.toml"), admin: fmt.Sprintf("127.0.0.1:%d", tcp),
	}
	if len(authority.Officers) > 0 {
		// What officers sign comes later; it is laid down here.
		g.bundle = filepath.Join(dir, "bundle.signed")
	}
	if err := os.WriteFile(g.config, []byte(g.toml(udp, authority)), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "database"), []byte(s.Database+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := g.certify(ctx, authority); err != nil {
		return nil, err
	}
	return g, s.prepareData(filepath.Join(dir, "data"))
}

func (s *Stage) prepareData(dir string) error {
	if s.cfg.PrepareData == nil {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return s.cfg.PrepareData(dir)
}

func (g *Gateway) toml(port int, authority *Authority) string {
	more := ""
	if g.bundle != "" {
		more = fmt.Sprintf("bundle = %q\n", g.bundle)
	}
	if strings.Contains(g.stage.Database, "password=") {
		more += "database_source = \"database\"\n"
	} else if g.stage.Database != "" {
		more += fmt.Sprintf("database = %q\n", g.stage.Database)
	}
	if g.Node != "" {
		more += fmt.Sprintf("node = %q\n", g.Node)
	}
	limits := g.stage.syslog()
	if g.stage.cfg.PrepareData != nil { // a disk made for tests: files that are changed often, and are soon made
		limits += "\n[limits]\njournal_bytes = 8388608\n"
	}
	if g.Node != "" {
		limits += fmt.Sprintf("\n[files]\nfolder = %q\nshared = true\n", g.stage.sharedFiles())
	}
	return more + fmt.Sprintf(`listen = ["127.0.0.1:%d"]
name = "localhost"
domain = %q
roots = %q
key = %q
pin_source = %q
certificate = "gateway.pem"
data = "data"
audit = "audit.jsonl"
admin = %q

[authority]
url = %q
`, port, authority.Domain, authority.Root, g.Token.URI("tls"), g.stage.pinFile(), g.admin, authority.URL) + limits
}

// certify carries the request to the authority and its certificate back.
func (g *Gateway) certify(ctx context.Context, authority *Authority) error {
	request, err := g.Command(ctx, "csr")
	if err != nil {
		return err
	}
	file := filepath.Join(g.dir, "gateway.csr")
	if err := os.WriteFile(file, []byte(request), 0o600); err != nil {
		return err
	}
	chain, err := authority.CertifyGateway(ctx, file, "localhost")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(g.dir, "gateway.pem"), []byte(chain), 0o600)
}

// program is the daemon that is started.
func (g *Gateway) program() string {
	if g.Bin != "" {
		return filepath.Join(g.Bin, "valise-gatewayd")
	}
	return g.stage.command("valise-gatewayd")
}

// Start starts the daemon; it returns when devices can connect.
func (g *Gateway) Start(ctx context.Context) (err error) {
	g.process, err = g.stage.ps.start(g.name, g.Token.Env, g.program(), "serve", "--config", g.config)
	if err != nil {
		return err
	}
	return g.process.accepts(ctx, g.admin)
}

// Command runs another command of the daemon's, with its configuration.
func (g *Gateway) Command(ctx context.Context, name string, args ...string) (string, error) {
	return Output(ctx, g.Token.Env, g.stage.command("valise-gatewayd"), append([]string{name, "--config", g.config}, args...)...)
}

// LayDown gives the gateway a policy bundle that officers signed.
func (g *Gateway) LayDown(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(g.bundle, data, 0o600); err != nil {
		return err
	}
	return g.process.cmd.Process.Signal(syscall.SIGHUP)
}

// Metrics is the page that the daemon publishes for operators.
func (g *Gateway) Metrics(ctx context.Context) (string, error) { return metricsOf(ctx, g.admin) }

func metricsOf(ctx context.Context, admin string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return string(text), err
}

// Metric returns a number that the gateway publishes for operators.
func (g *Gateway) Metric(ctx context.Context, name string) (float64, error) {
	text, err := g.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the gateway publishes no %s", name)
}

// Config is the configuration file.
func (g *Gateway) Config() string { return g.config }

// Process is the running daemon.
func (g *Gateway) Process() *Process { return g.process }
