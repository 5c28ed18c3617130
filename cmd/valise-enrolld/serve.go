// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"valise/enroll"
	"valise/enroll/acme"
	"valise/enroll/feed"
	"valise/hsm"
	"valise/internal/daemon"
	"valise/internal/store/authority"
	"valise/record"
	"valise/statement"
)

type serveCmd struct{ common }

// Run answers devices until a signal. When the record names other keys, or at SIGHUP when
// configuration or HTTPS key have changed, everything but the listener is opened anew:
// whoever connects meanwhile waits a moment.
func (cmd *serveCmd) Run(ctx context.Context) (err error) {
	// Every request makes some hundred KiB of garbage over a heap of a few MiB:
	// collecting half as often saves a tenth of the processor time.
	debug.SetGCPercent(400)
	hangups := make(chan os.Signal, 1) // one between two rounds counts for the next
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	door := new(door)
	defer func() { err = errors.Join(err, door.shut()) }()
	for {
		if err := cmd.serve(ctx, door, hangups); !errors.Is(err, errChangeOver) {
			return err
		}
	}
}

// serve answers devices with what configuration and record say at present.
func (cmd *serveCmd) serve(ctx context.Context, door *door, hangups <-chan os.Signal) (err error) {
	text, err := os.ReadFile(cmd.Config)
	if err != nil {
		return err
	}
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	log := daemon.NewLog(os.Stderr, o.cfg.LogLevel)
	o.log = log
	d := daemon.New(daemon.Config{Admin: o.cfg.Admin, Drain: o.cfg.Drain.Duration, Log: log})
	m := newMetrics(o.store)
	d.Metrics.MustRegister(m)
	o.watch, o.appraised = daemon.NewWatch(d.Metrics), m.appraised
	o.watch.Disk("data", o.cfg.Data)
	if err := o.openCA(ctx); err != nil {
		return err
	}
	o.watch.Certificate("issuing", func() *x509.Certificate { return o.chain[0] })
	o.watch.Certificate("root", func() *x509.Certificate { return o.chain[1] })
	o.audit.Metrics(d.Metrics)
	o.addHealth(d.Health)

	var gateways *feed.Feed // before anything is served
	decisions, err := enroll.New(enroll.Config{
		Store: o.store, CA: o.ca, Appraiser: o.appraiser, Domain: o.cfg.Domain, URL: o.cfg.URL,
		Event: o.audit.Event, Log: log, Issued: m.issue,
		Hardware: func() error { return healthy(o.token) }, Forward: func(raw []byte) { gateways.Forward(raw) },
	})
	if err != nil {
		return err
	}
	// Before the first bulletin: a restart must not bring back what the rules refuse.
	if err := decisions.Reappraise(ctx); err != nil {
		return err
	}
	gateways, err = o.newFeed(decisions, log)
	if err != nil {
		return err
	}
	d.Health.Add("bulletin", gateways.Check)
	m.follow(d.Metrics, gateways.State)
	handler, err := o.newHandler(decisions, gateways, m, log)
	if err != nil {
		return err
	}
	tlsKey, err := o.openTLS(ctx)
	if err != nil {
		return err
	}
	defer tlsKey.Close()
	certs := &serverCertificate{office: o, key: tlsKey, log: log}
	if err := certs.renew(ctx); err != nil {
		return err
	}
	o.watch.Certificate("https", certs.leaf)
	ln, err := door.open(o.cfg.Listen)
	if err != nil {
		return err
	}
	follower := &follower{office: o, path: cmd.Config, text: text, tls: tlsKey, log: log, hangups: hangups}
	d.Health.Add("keys", follower.check)
	log.Info("listening", "what", "acme", "address", ln.Addr().String(), "url", o.cfg.URL+acme.PathDirectory)
	return d.Run(ctx,
		daemon.HTTP("acme", httpServer(handler, log), tls.NewListener(daemon.Limit(daemon.LimitEach(ln, o.cfg.Limits.PerAddress), o.cfg.Limits.Connections), certs.config())),
		daemon.Part{Name: "issuing", Serve: decisions.Work},
		daemon.Part{Name: "checkpoints", Serve: o.book.Work},
		daemon.Part{Name: "bulletins", Serve: gateways.Run},
		daemon.Part{Name: "https certificate", Serve: certs.work},
		daemon.Reload(func(context.Context) {
			if err := o.audit.Reopen(); err != nil {
				log.Error("the audit file was not opened again; lines go on into the old one", "error", err.Error())
			}
		}),
		daemon.Part{Name: "keys", Serve: follower.work},
	)
}

func httpServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second, // covers the TLS handshake
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      40 * time.Second, // an HSM may be slow to answer
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// addHealth turns /healthz red when the token, the database or the audit stream fail.
func (o *office) addHealth(h *daemon.Health) {
	h.Add("hsm", func(ctx context.Context) error { return alive(ctx, o.token) })
	h.Add("https key", func(ctx context.Context) error { return alive(ctx, o.tlsToken) })
	h.Add("store", func(ctx context.Context) error {
		return o.store.View(ctx, func(tx *authority.Tx) error { _, err := tx.LedgerSize(); return err })
	})
	h.Add("restored", o.checkRestored)
	h.Add("record", func(context.Context) error { return o.book.Damage() })
	h.Add("checkpoints", o.checkCheckpoints)
	h.Add("clock", o.checkClock)
	h.Add("audit", func(ctx context.Context) error {
		_, err := os.Stat(o.cfg.Audit)
		return errors.Join(err, o.audit.Check(ctx))
	})
}

// checkpointLimit is how long leaves may wait for a checkpoint before /healthz is red:
// clients believe no certificate that none covers.
const checkpointLimit = time.Minute

func (o *office) checkCheckpoints(context.Context) error {
	behind, err := o.book.Checkpointed()
	if behind < checkpointLimit {
		return nil
	}
	return errors.Join(fmt.Errorf("leaves have waited for a checkpoint for %v", behind.Round(time.Second)), err)
}

// checkClock compares the clock with the record's newest leaf: if that is dated ahead,
// one of the two clocks was wrong, and statements of today are late for the record.
func (o *office) checkClock(context.Context) (err error) {
	o.book.View(func(s *record.State) {
		if ahead := time.Until(s.Time()); ahead > statement.Skew {
			err = fmt.Errorf("the newest leaf of the record is dated %v ahead of this clock: is it right?", ahead.Round(time.Second))
		}
	})
	return err
}

// serverCertificate is the authority's own HTTPS certificate, issued by itself under
// a key in the token. The chain that it serves includes the root, so that a device
// can compare the root with the hash in its invitation.
type serverCertificate struct {
	office *office
	key    hsm.Key
	log    *slog.Logger
	now    atomic.Pointer[tls.Certificate]
}

func (s *serverCertificate) config() *tls.Config {
	return &tls.Config{
		// Gateways show theirs; package feed verifies it, and asks nobody else.
		ClientAuth: tls.RequestClientCert,
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.now.Load(), nil
		},
	}
}

// leaf is the certificate in use.
func (s *serverCertificate) leaf() *x509.Certificate {
	leaf, err := x509.ParseCertificate(s.now.Load().Certificate[0])
	if err != nil {
		return nil
	}
	return leaf
}

func (s *serverCertificate) renew(ctx context.Context) error {
	i, err := s.office.ca.IssueServer(ctx, s.key.Public(), s.office.cfg.hosts())
	if err != nil {
		return fmt.Errorf("HTTPS certificate: %w", err)
	}
	s.now.Store(&tls.Certificate{
		Certificate: append([][]byte{i.Certificate}, s.office.ca.Chain()...), PrivateKey: s.key,
	})
	return nil
}

func (s *serverCertificate) work(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.renew(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("renewal waits", "error", err.Error())
			}
		}
	}
}
