// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"valise/bench/daemons"
	"valise/bench/lean"
	"valise/internal/stage"
)

// A target is a kind of server to measure.
type target struct {
	name string
	kind string // of its clients
	// start starts one on an empty folder; what it returns is stopped even with an
	// error.
	start func(ctx context.Context, dir string) (*server, error)
}

// A server is one that runs.
type server struct {
	address string
	daemon  *daemons.Process
	cluster *daemons.Postgres // nil: none
}

func (s *server) stop() {
	if s.daemon != nil {
		s.daemon.Stop()
	}
	if s.cluster != nil {
		s.cluster.Stop()
	}
}

// processes are those whose time counts.
func (s *server) processes() []*daemons.Process {
	if s.cluster != nil {
		return []*daemons.Process{s.daemon, s.cluster.Process}
	}
	return []*daemons.Process{s.daemon}
}

// The servers, by the names that figures carry.
const (
	ours         = "valise"
	oursPostgres = "valise_postgres"
	natsDefault  = "nats"
	natsAlways   = "nats_always"
	mosquitto    = "mosquitto"
	bareNothing  = "quic"
	bareWithLog  = "quic_log"
)

// targets lists what is to be measured, and builds it.
func (b *bench) targets(ctx context.Context) ([]*target, error) {
	all := []*target{
		{ours, "valise", b.startValise},
		{oursPostgres, "valise", b.startValisePostgres},
		{natsDefault, "nats", func(ctx context.Context, dir string) (*server, error) { return b.startNATS(ctx, dir, "2m") }},
		{natsAlways, "nats", func(ctx context.Context, dir string) (*server, error) { return b.startNATS(ctx, dir, "always") }},
		{mosquitto, "mqtt", b.startMosquitto},
		{bareNothing, "bare", func(ctx context.Context, dir string) (*server, error) { return b.startBare(ctx, dir, "") }},
		{bareWithLog, "bare", func(ctx context.Context, dir string) (*server, error) {
			return b.startBare(ctx, dir, filepath.Join(dir, "log"))
		}},
	}
	for _, name := range b.only {
		if !slices.ContainsFunc(all, func(t *target) bool { return t.name == name }) {
			return nil, fmt.Errorf("there is no server %q", name)
		}
	}
	all = slices.DeleteFunc(all, func(t *target) bool { return len(b.only) > 0 && !slices.Contains(b.only, t.name) })
	if slices.ContainsFunc(all, func(t *target) bool { return t.kind == "nats" }) {
		return all, b.buildNATS(ctx)
	}
	return all, nil
}

// startBare starts this program as the bare relay.
func (b *bench) startBare(ctx context.Context, dir, log string) (*server, error) {
	port, err := daemons.FreePort()
	if err != nil {
		return nil, err
	}
	s := &server{address: "127.0.0.1:" + strconv.Itoa(port)}
	s.daemon, err = daemons.Start(filepath.Join(dir, "out"), syscall.SIGKILL, nil, nil, b.self, "bare",
		toJSON(bareConfig{Dir: b.dir, Address: s.address, Log: log}))
	if err != nil {
		return s, err
	}
	// A client's handshake waits for it: QUIC repeats its first packet.
	return s, nil
}

// Mosquitto comes from Debian. What is set beside the address: no delay of small
// packets, and no limit to what waits for a client.
func (b *bench) startMosquitto(ctx context.Context, dir string) (*server, error) {
	port, err := daemons.FreePort()
	if err != nil {
		return nil, err
	}
	s := &server{address: "127.0.0.1:" + strconv.Itoa(port)}
	config := filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nlog_type error\n", port)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return s, err
	}
	program := "/usr/sbin/mosquitto"
	if _, err := os.Stat(program); err != nil {
		return s, fmt.Errorf("%s is missing: apt-get install mosquitto", program)
	}
	if s.daemon, err = daemons.Start(filepath.Join(dir, "out"), syscall.SIGTERM, nil, nil, program, "-c", config); err != nil {
		return s, err
	}
	return s, s.daemon.Accepts(ctx, "tcp", s.address)
}

// NATS as its authors publish it, pinned in nats.mod.
const (
	natsModule  = "github.com/nats-io/nats-server/v2"
	natsVersion = "v2.15.2"
	natsModFile = "bench/relay/nats.mod"
)

func (b *bench) buildNATS(ctx context.Context) error {
	out, err := stage.Output(ctx, nil, "go", "list", "-modfile="+natsModFile, "-m", "-f", "{{.Version}}", natsModule)
	if err != nil {
		return err
	}
	if out != natsVersion+"\n" {
		return fmt.Errorf("%s pins %s %q, want %s", natsModFile, natsModule, out, natsVersion)
	}
	return build(ctx, filepath.Join(b.bin, "nats-server"), "-modfile="+natsModFile, natsModule)
}

// startNATS starts it with JetStream; sync is how often it syncs: its default is
// every two minutes.
func (b *bench) startNATS(ctx context.Context, dir, sync string) (*server, error) {
	port, err := daemons.FreePort()
	if err != nil {
		return nil, err
	}
	s := &server{address: "127.0.0.1:" + strconv.Itoa(port)}
	config := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: %q\njetstream {\n  store_dir: %q\n  sync_interval: %s\n}\n", s.address, filepath.Join(dir, "store"), sync)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return s, err
	}
	if s.daemon, err = daemons.Start(filepath.Join(dir, "out"), syscall.SIGTERM, nil, nil, filepath.Join(b.bin, "nats-server"), "-c", config); err != nil {
		return s, err
	}
	return s, s.daemon.Accepts(ctx, "tcp", s.address)
}

// startValise starts the gateway on its embedded store, startValisePostgres on a
// cluster of its own with PostgreSQL's default settings.
func (b *bench) startValise(ctx context.Context, dir string) (*server, error) {
	return b.startGateway(ctx, dir, new(server))
}

func (b *bench) startValisePostgres(ctx context.Context, dir string) (*server, error) {
	s := new(server)
	var err error
	if s.cluster, err = daemons.NewPostgres(ctx, filepath.Join(dir, "db")); err != nil {
		return s, err
	}
	if err := s.cluster.SQL(ctx, "CREATE DATABASE valise"); err != nil {
		return s, err
	}
	return b.startGateway(ctx, dir, s)
}

func (b *bench) startGateway(ctx context.Context, dir string, s *server) (*server, error) {
	udp, err1 := daemons.FreePort()
	tcp, err2 := daemons.FreePort()
	if err := errors.Join(err1, err2); err != nil {
		return s, err
	}
	s.address = "127.0.0.1:" + strconv.Itoa(udp)
	admin := "127.0.0.1:" + strconv.Itoa(tcp)
	config := filepath.Join(dir, "gateway.toml")
	if err := os.WriteFile(config, []byte(b.toml(s, admin)), 0o600); err != nil {
		return s, err
	}
	program := filepath.Join(b.bin, "valise-gatewayd")
	certificate := filepath.Join(b.dir, "gateway.pem")
	if _, err := os.Stat(certificate); err != nil {
		request, err := stage.Output(ctx, b.token.Env, program, "csr", "--config", config, "--algorithm", "P-256")
		if err != nil {
			return s, err
		}
		if err := b.authority.CertifyGateway(certificate, "127.0.0.1", request); err != nil {
			return s, err
		}
	}
	if !b.plain {
		if err := b.authority.Publish(b.dir); err != nil {
			return s, err
		}
	}
	var err error
	if s.daemon, err = daemons.Start(filepath.Join(dir, "out"), syscall.SIGTERM, nil, b.token.Env, program, "serve", "--config", config); err != nil {
		return s, err
	}
	if err := s.daemon.Accepts(ctx, "tcp", admin); err != nil {
		return s, err
	}
	return s, b.obey(ctx, program, config)
}

// obey hands the gateway what the authority says today: which bundle is in force.
func (b *bench) obey(ctx context.Context, program, config string) error {
	if b.plain {
		return nil
	}
	for _, each := range [][2]string{{"manifest", lean.ManifestFile}, {"bulletin", lean.BulletinFile}} {
		if _, err := stage.Output(ctx, b.token.Env, program, "import", "--config", config, each[0], filepath.Join(b.dir, each[1])); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) toml(s *server, admin string) string {
	lines := []string{
		fmt.Sprintf("listen = [%q]", s.address),
		`name = "127.0.0.1"`,
		fmt.Sprintf("domain = %q", domain),
		fmt.Sprintf("roots = %q", filepath.Join(b.dir, "roots.pem")),
		fmt.Sprintf("key = %q", b.token.URI("tls")),
		fmt.Sprintf("pin_source = %q", filepath.Join(b.dir, "pin")),
		fmt.Sprintf("certificate = %q", filepath.Join(b.dir, "gateway.pem")),
		`data = "data"`, `audit = "audit.jsonl"`,
		fmt.Sprintf("admin = %q", admin),
	}
	if !b.plain {
		lines = append(lines, fmt.Sprintf("bundle = %q", filepath.Join(b.dir, lean.BundleFile)))
	}
	if s.cluster != nil {
		lines = append(lines, fmt.Sprintf("database = %q", s.cluster.DSN("valise")))
	}
	return strings.Join(append(lines, "[limits]", "messages_per_second = 1000000", "burst = 1000000", ""), "\n")
}
