// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"valise/bench/daemons"
	"valise/bench/lean"
	"valise/internal/stage"
)

// A site is a database server and the gateways on it.
type site struct {
	cluster   *daemons.Postgres
	gateways  []*daemons.Process
	addresses []string
	files     string // folder that they share
}

func (s *site) stop() {
	for _, g := range s.gateways {
		g.Stop()
	}
	if s.cluster != nil {
		s.cluster.Stop()
	}
}

// ended says why something that should run does not.
func (s *site) ended() (err error) {
	for _, g := range s.gateways {
		err = errors.Join(err, g.Ended())
	}
	return errors.Join(err, s.cluster.Ended())
}

// start starts a server and so many gateways on it; 0: one that has it to itself. What it
// returns is stopped even with an error.
func (b *bench) start(ctx context.Context, dir string, gateways int) (*site, error) {
	s := new(site)
	var err error
	if s.cluster, err = daemons.NewPostgres(ctx, filepath.Join(dir, "db")); err != nil {
		return s, err
	}
	if err := errors.Join(s.cluster.SQL(ctx, "CREATE DATABASE valise"), b.authority.Publish(b.dir)); err != nil {
		return s, err
	}
	s.files = filepath.Join(dir, "files")
	if err := os.Mkdir(s.files, 0o700); err != nil {
		return s, err
	}
	for i := range max(gateways, 1) {
		node := ""
		if gateways > 0 {
			node = fmt.Sprint("node-", i+1)
		}
		if err := b.startGateway(ctx, filepath.Join(dir, fmt.Sprint("gateway", i)), node, s); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (b *bench) startGateway(ctx context.Context, dir, node string, s *site) error {
	udp, err1 := daemons.FreePort()
	tcp, err2 := daemons.FreePort()
	if err := errors.Join(err1, err2, os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	address, admin := "127.0.0.1:"+strconv.Itoa(udp), "127.0.0.1:"+strconv.Itoa(tcp)
	config := filepath.Join(dir, "gateway.toml")
	if err := os.WriteFile(config, []byte(b.toml(address, admin, node, s)), 0o600); err != nil {
		return err
	}
	program := filepath.Join(b.bin, "valise-gatewayd")
	certificate := filepath.Join(b.dir, "gateway.pem")
	if _, err := os.Stat(certificate); err != nil {
		request, err := stage.Output(ctx, b.token.Env, program, "csr", "--config", config, "--algorithm", "P-256")
		if err != nil {
			return err
		}
		if err := b.authority.CertifyGateway(certificate, "127.0.0.1", request); err != nil {
			return err
		}
	}
	g, err := daemons.Start(filepath.Join(dir, "out"), syscall.SIGTERM, nil, b.token.Env, program, "serve", "--config", config)
	if err != nil {
		return err
	}
	s.gateways, s.addresses = append(s.gateways, g), append(s.addresses, address)
	if err := g.Accepts(ctx, "tcp", admin); err != nil {
		return err
	}
	// It is handed what the authority says today: which bundle is in force.
	for _, each := range [][2]string{{"manifest", lean.ManifestFile}, {"bulletin", lean.BulletinFile}} {
		if _, err := stage.Output(ctx, b.token.Env, program, "import", "--config", config, each[0], filepath.Join(b.dir, each[1])); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) toml(address, admin, node string, s *site) string {
	lines := []string{
		fmt.Sprintf("listen = [%q]", address), `name = "127.0.0.1"`,
		fmt.Sprintf("domain = %q", domain),
		fmt.Sprintf("roots = %q", filepath.Join(b.dir, "roots.pem")),
		fmt.Sprintf("key = %q", b.token.URI("tls")),
		fmt.Sprintf("pin_source = %q", filepath.Join(b.dir, "pin")),
		fmt.Sprintf("certificate = %q", filepath.Join(b.dir, "gateway.pem")),
		`data = "data"`, `audit = "audit.jsonl"`,
		fmt.Sprintf("admin = %q", admin),
		fmt.Sprintf("bundle = %q", filepath.Join(b.dir, lean.BundleFile)),
		fmt.Sprintf("database = %q", s.cluster.DSN("valise")),
	}
	if node != "" {
		lines = append(lines, fmt.Sprintf("node = %q", node), "[files]", fmt.Sprintf("folder = %q", s.files), "shared = true")
	}
	return strings.Join(append(lines, "[limits]", "messages_per_second = 1000000", "burst = 1000000", ""), "\n")
}
