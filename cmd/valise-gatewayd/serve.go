// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"valise/gateway"
	"valise/gateway/feed"
	"valise/gateway/mailbox"
	"valise/gateway/rules"
	"valise/hsm"
	"valise/identity"
	"valise/internal/daemon"
	"valise/internal/keys"
)

type serveCommand struct {
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
}

// server is what serve opens, and closes in the reverse order.
type server struct {
	cfg     *Config
	log     *slog.Logger
	audit   *daemon.Audit
	token   hsm.Token
	uri     *keys.URI // of the key
	key     hsm.Key
	former  []hsm.Key // that it was before
	trust   *identity.Trust
	store   mailbox.Store
	gateway *gateway.Gateway
	sockets []net.PacketConn
	tcp     []*net.TCPListener

	feed        *feed.Feed                      // what the authority says; nil: nothing
	rules       *rules.Rules                    // the policy bundle in force; nil: no authority is followed
	certificate atomic.Pointer[tls.Certificate] // that the feed shows
}

// Run serves until a signal.
func (c *serveCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(c.Config)
	if err == nil {
		err = cfg.checkServe()
	}
	if err != nil {
		return err
	}
	daemon.SteadyHeap(os.Getenv("GOGC"))
	s := &server{cfg: cfg, log: daemon.NewLog(os.Stderr, cfg.LogLevel)}
	defer func() { err = errors.Join(err, s.close()) }()
	d := daemon.New(daemon.Config{Admin: cfg.Admin, Drain: cfg.Drain.Duration, Log: s.log})
	if err := s.open(ctx, d); err != nil {
		return err
	}
	for _, socket := range s.sockets {
		s.log.Info("listening", "address", socket.LocalAddr().String(), "name", cfg.Name, "domain", cfg.Domain, "node", cfg.Node)
	}
	for _, listener := range s.tcp {
		s.log.Info("listening for devices without UDP", "address", listener.Addr().String())
	}
	return d.Run(ctx,
		daemon.Part{Name: "gateway", Serve: s.serve, Drain: s.gateway.Drain},
		daemon.Part{Name: "authority", Serve: s.follow},
		daemon.Part{Name: "mark", Serve: s.watchMark},
		daemon.Part{Name: "reload", Serve: s.reload})
}

func (s *server) open(ctx context.Context, d *daemon.Daemon) error {
	cfg := s.cfg
	var err error
	if s.audit, err = cfg.openAudit(s.log); err != nil {
		return err
	}
	s.audit.Metrics(d.Metrics)
	watch := daemon.NewWatch(d.Metrics)
	watch.Disk("data", cfg.Data)
	uri, token, err := cfg.openToken(ctx)
	if err != nil {
		return err
	}
	s.token = token
	s.uri = uri
	if s.key, err = cfg.openKey(ctx, uri, token); err != nil {
		return fmt.Errorf("%w: run valise-gatewayd csr first", err)
	}
	s.key = keys.Timed(s.key, watch.Signs("tls"))
	if s.trust, err = cfg.trust(); err != nil {
		return err
	}
	certificate, err := cfg.certificate(s.trust, s.key)
	if err != nil {
		return err
	}
	s.certificate.Store(certificate)
	watch.Certificate("gateway", func() *x509.Certificate { return s.certificate.Load().Leaf })
	denied, err := cfg.denied()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	if s.store, err = cfg.openDatabase(ctx); err != nil {
		return err
	}
	if store, ok := s.store.(marked); ok {
		if err := cfg.checkMark(ctx, store); err != nil {
			return err
		}
	}
	if err := s.openFeed(ctx, d, certificate); err != nil {
		return err
	}
	if err := s.openRules(ctx, d); err != nil {
		return err
	}
	tunnel, err := cfg.tunnel()
	if err != nil {
		return err
	}
	files, err := cfg.openFiles(ctx)
	if err != nil {
		return err
	}
	config := gateway.Config{
		Files: files, FilesShared: cfg.Files.Shared || cfg.Node != "",
		Authority: tunnel,
		Trust:     s.trust, Domain: cfg.Domain, Certificate: certificate, Store: s.store, Dir: cfg.Data,
		Audit: s.record, Log: s.log, Metrics: d.Metrics, Denied: denied, Limits: cfg.limits(), Batch: cfg.Limits.Batch, Tightening: cfg.Authority.tightening(),
	}
	if s.feed != nil {
		config.Behind = s.feed.Hurry
		config.Standings, config.Record, config.Rules = s.feed.Set(), s.feed, s.rules.Now()
	}
	if s.gateway, err = gateway.New(config); err != nil {
		return err
	}
	if s.feed != nil {
		s.applyFeed(ctx)
	}
	s.health(d)
	return s.listen(ctx)
}

// record writes one line of the audit stream.
func (s *server) record(ctx context.Context, event, reason string, attrs ...slog.Attr) error {
	if reason == "" {
		return s.audit.Event(ctx, event, attrs...)
	}
	return s.audit.Refused(ctx, event, reason, attrs...)
}

func (s *server) listen(ctx context.Context) error {
	for _, address := range s.cfg.Listen {
		socket, err := new(net.ListenConfig).ListenPacket(ctx, daemon.Network("udp", address, s.cfg.Listen), address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		s.sockets = append(s.sockets, socket)
	}
	for _, address := range s.cfg.tcpAddresses() {
		listener, err := new(net.ListenConfig).Listen(ctx, daemon.Network("tcp", address, s.cfg.tcpAddresses()), address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		s.tcp = append(s.tcp, listener.(*net.TCPListener))
	}
	return nil
}

// tcpAddresses are those of QUIC unless others are named; an empty list: none.
func (c *Config) tcpAddresses() []string {
	if c.ListenTCP == nil {
		return c.Listen
	}
	return c.ListenTCP
}

func (s *server) health(d *daemon.Daemon) {
	d.Health.Add("store", s.gateway.Check)
	d.Health.Add("audit", s.audit.Check)
	if node, ok := s.store.(mailbox.Node); ok {
		d.Health.Add("nodes", func(context.Context) error { return node.Deaf() })
	}
	if token, ok := s.token.(interface{ Health() hsm.Health }); ok {
		d.Health.Add("hsm", func(context.Context) error { return token.Health().Err })
	}
}

// serve runs the gateway until its context ends; sockets first, then what
// commits to the store.
func (s *server) serve(ctx context.Context) error {
	committing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	background := make(chan error, 1)
	go func() { background <- s.gateway.Run(committing) }()
	sockets, ctx := errgroup.WithContext(ctx)
	for _, socket := range s.sockets {
		sockets.Go(func() error { return s.gateway.Serve(ctx, socket) })
	}
	for _, listener := range s.tcp {
		sockets.Go(func() error { return s.gateway.ServeTCP(ctx, listener) })
	}
	err := sockets.Wait()
	stop()
	return errors.Join(err, <-background)
}

// reload reads deny list, certificate and policy bundle again at SIGHUP, and opens the audit
// file anew, which may have been moved away. What cannot be read
// leaves the old one in force.
func (s *server) reload(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
		}
		if err := s.audit.Reopen(); err != nil {
			s.log.Error("the audit file was not opened again; lines go on into the old one", "error", err)
		}
		denied, err := s.cfg.denied()
		if err == nil {
			s.gateway.SetDenied(denied)
		} else {
			s.log.Error("the deny list was not read; the old one stays in force", "error", err)
		}
		certificate, certErr := s.recertified(ctx)
		if certErr == nil {
			s.gateway.SetCertificate(certificate)
			s.certificate.Store(certificate)
		} else {
			s.log.Error("the certificate was not read; the old one stays in use", "error", certErr)
		}
		s.readBundle(ctx)
		if err == nil && certErr == nil {
			s.log.Info("reloaded", "denied", len(denied), "certificate_until", certificate.Leaf.NotAfter)
		}
	}
}

// recertified reads the certificate, which may be for a successor of the key in use.
func (s *server) recertified(ctx context.Context) (*tls.Certificate, error) {
	if _, err := readCertificates(s.cfg.Certificate); err != nil {
		return nil, fmt.Errorf("certificate: %w", err) // and the token is left alone
	}
	key, err := s.cfg.openKey(ctx, s.uri, s.token)
	if err != nil {
		return nil, err
	}
	certificate, err := s.cfg.certificate(s.trust, key)
	if err != nil {
		return nil, errors.Join(err, key.Close())
	}
	// Handshakes that have begun use the former one.
	s.former, s.key = append(s.former, s.key), key
	return certificate, nil
}

func (s *server) close() error {
	var all []error
	for _, socket := range s.sockets {
		if err := socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			all = append(all, err)
		}
	}
	for _, listener := range s.tcp {
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			all = append(all, err)
		}
	}
	if s.feed != nil {
		all = append(all, s.feed.Close())
	}
	if s.store != nil {
		if store, ok := s.store.(marked); ok && s.gateway != nil {
			// Best done: what was noted before stays true.
			_ = s.cfg.noteMark(context.Background(), store)
		}
		all = append(all, s.store.Close())
	}
	for _, key := range append(s.former, s.key) {
		if key != nil {
			all = append(all, key.Close())
		}
	}
	if s.token != nil {
		all = append(all, s.token.Close())
	}
	if s.audit != nil {
		all = append(all, s.audit.Close())
	}
	return errors.Join(all...)
}

func (c *Config) denied() (map[identity.DeviceID]bool, error) {
	if c.Deny == "" {
		return nil, nil
	}
	f, err := os.Open(c.Deny)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return gateway.ParseDenied(f)
}
