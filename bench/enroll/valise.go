// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/acme"

	"valise/bench/daemons"
	"valise/identity"
	"valise/internal/stage"
)

// A server is an authority that runs, with the clients that have accounts there.
type server struct {
	name    string
	curve   elliptic.Curve
	daemon  *daemons.Process
	cluster *daemons.Postgres // nil: SQLite, in the daemon itself
	clients []*client
}

func (s *server) stop() {
	if s.daemon != nil {
		s.daemon.Stop()
	}
	if s.cluster != nil {
		s.cluster.Stop()
	}
}

const domain = "interieur.example"

// newValise founds an authority as an operator would, by its own commands: keys in
// the token, lint and ledger on, no officers, so nobody has to approve.
func (b *bench) newValise(ctx context.Context, name string, curve elliptic.Curve, database string) (*server, error) {
	s := &server{name: name, curve: curve}
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	port, err := daemons.FreePort()
	if err != nil {
		return nil, err
	}
	if database == "postgres" {
		if s.cluster, err = daemons.NewPostgres(ctx, dir+"-db"); err == nil {
			err = s.cluster.SQL(ctx, "CREATE DATABASE valise")
		}
		if err != nil {
			return s, err
		}
	}
	config := filepath.Join(dir, "enrolld.toml")
	if err := os.WriteFile(config, []byte(s.toml(b, port)), 0o600); err != nil {
		return s, err
	}
	roster := filepath.Join(dir, "people.csv")
	people := "address,name,unit,clearance\n"
	for i := range maxClients {
		people += fmt.Sprintf("%s,Official %d,Unit,\n", address(i), i)
	}
	if err := os.WriteFile(roster, []byte(people), 0o600); err != nil {
		return s, err
	}
	program := filepath.Join(b.bin, "valise-enrolld")
	for _, args := range [][]string{{"init"}, {"roster", "import", roster}} {
		if _, err := stage.Output(ctx, b.token.Env, program, append(args, "--config", config)...); err != nil {
			return s, err
		}
	}
	if s.daemon, err = daemons.Start(dir+".log", syscall.SIGTERM, nil, b.token.Env, program, "serve", "--config", config); err != nil {
		return s, err
	}
	if err := s.daemon.Accepts(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		return s, err
	}
	roots, err := pool(filepath.Join(dir, "data", "root.pem"))
	if err != nil {
		return s, err
	}
	for i := range maxClients {
		out, err := stage.Output(ctx, b.token.Env, program, "invite", address(i), "--config", config)
		if err != nil {
			return s, err
		}
		inv, err := identity.ParseInvitation(strings.TrimSpace(out))
		if err != nil {
			return s, err
		}
		c, err := newClient(ctx, inv.URL+"/acme/directory", roots, &acme.ExternalAccountBinding{KID: inv.KID, Key: inv.Key})
		if err != nil {
			return s, fmt.Errorf("account: %w", err)
		}
		card := newCard(b.vendor, curve, int64(10_000_001+i))
		s.clients = append(s.clients, &client{acme: c, card: card, identifier: card.ID(maker{}).String()})
	}
	return s, nil
}

func address(i int) string { return fmt.Sprintf("official%d@%s", i, domain) }

func (s *server) toml(b *bench, port int) string {
	text := fmt.Sprintf(`domain = %q
url = "https://localhost:%d"
listen = "127.0.0.1:%d"
data = "data"
audit = "audit.jsonl"
log-level = "warn"
`, domain, port, port)
	if s.cluster != nil {
		text += fmt.Sprintf("database = %q\n", s.cluster.DSN("valise"))
	}
	return text + fmt.Sprintf(`
[token]
uri = "pkcs11:token=%s?module-path=%s"
pin-source = %q
algorithm = %q
root-key = "%s-root"
issuer-key = "%s-issuer"
tls-key = "%s-tls"
bulletin-key = "%s-bulletin"
ledger-key = "%s-ledger"

[endorsements]
roots = [%q]

[limits]
per-second = 100000
burst = 100000
`, b.token.Label, b.token.Module, b.pin, s.curve.Params().Name, s.name, s.name, s.name, s.name, s.name, b.vendorPEM)
}

func pool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(data) {
		return nil, errors.New(path + " holds no certificate")
	}
	return p, nil
}
