// SPDX-License-Identifier: Apache-2.0

// Package daemon is what Valise's two daemons have in common: a life that begins
// with strict configuration and ends with an orderly drain, a health page, metrics,
// a log and an audit stream.
//
// A daemon's main does, in this order:
//
//	var cfg Config
//	err := daemon.LoadTOML(path, &cfg)               // unknown keys are errors
//	log := daemon.NewLog(os.Stderr, cfg.LogLevel)    // JSON lines
//	audit, err := daemon.OpenAudit(cfg.Audit)        // JSON lines, 0600, append only
//	d := daemon.New(daemon.Config{Admin: cfg.Admin, Drain: cfg.Drain.Duration, Log: log})
//	d.Health.Add("hsm", check)                       // red on /healthz when check fails
//	d.Metrics.MustRegister(…)                        // served on /metrics
//	err = d.Run(ctx, daemon.HTTP("acme", server, listener), daemon.Part{…})
//
// The log is for operators and may be thrown away; the audit stream is for auditors
// and says who was refused and why. Neither may ever hold a PIN, a key, an
// invitation's code or a message.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
)

// A Part is one thing that runs for the daemon's whole life: a listener, a worker.
type Part struct {
	// Name appears in the log.
	Name string
	// Serve runs until the daemon stops: either its context ends, or Drain ends it.
	// Any return before that, with or without an error, stops the daemon.
	Serve func(ctx context.Context) error
	// Drain, if set, is called when the daemon stops; Serve must return after it.
	// Its context ends when the time for draining is over. With Drain set, Serve's
	// context lives until Drain has returned.
	Drain func(ctx context.Context) error
}

// A Config holds what every daemon needs. Log is required.
type Config struct {
	// Admin is the address of the listener for /healthz and /metrics. It must be a
	// loopback address; empty means no such listener.
	Admin string
	// Drain is how long running work may take after a signal; zero means 10 s.
	Drain time.Duration
	Log   *slog.Logger
}

// A Daemon is built by New and lives in Run.
type Daemon struct {
	Log     *slog.Logger
	Health  *Health
	Metrics *prometheus.Registry

	admin string
	drain time.Duration
}

// New returns a daemon with an empty health page and the Go runtime's metrics.
func New(cfg Config) *Daemon {
	d := &Daemon{
		Log: cfg.Log, Health: new(Health), Metrics: prometheus.NewRegistry(),
		admin: cfg.Admin, drain: cfg.Drain,
	}
	if d.drain == 0 {
		d.drain = 10 * time.Second
	}
	d.Metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		d.Health,
	)
	return d
}

var errStopped = errors.New("stopped without being asked")

// Run serves all parts until SIGINT, SIGTERM, the end of ctx, or the first part's
// end; then it drains them all. It returns nil after an orderly end. A second signal
// ends the process at once.
func (d *Daemon) Run(ctx context.Context, parts ...Part) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if d.admin != "" {
		ln, err := listenLoopback(d.admin)
		if err != nil {
			return err
		}
		parts = append(parts, HTTP("admin", d.adminServer(), ln))
	}

	g, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() {
		stop() // from here on a signal has its default effect
		d.Health.Drain()
		d.Log.Info("draining", "limit", d.drain.String())
	})
	for _, p := range parts {
		d.start(ctx, g, p)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.Log.Info("stopped")
	return nil
}

func (d *Daemon) start(ctx context.Context, g *errgroup.Group, p Part) {
	serving, end := ctx, context.CancelFunc(func() {})
	if p.Drain != nil {
		serving, end = context.WithCancel(context.WithoutCancel(ctx))
		g.Go(func() error {
			<-ctx.Done()
			defer end()
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.drain)
			defer cancel()
			if err := p.Drain(limited); err != nil {
				return fmt.Errorf("%s: drain: %w", p.Name, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer end()
		err := p.Serve(serving)
		if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return nil
		}
		if err == nil {
			err = errStopped
		}
		return fmt.Errorf("%s: %w", p.Name, err)
	})
}

// listenLoopback refuses addresses that other machines reach: metrics and health
// say much about a network, and nothing on that listener is authenticated.
func listenLoopback(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("admin listener %q: %w", address, err)
	}
	ip := net.ParseIP(host)
	if ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("admin listener %q is not on a loopback IP address: use 127.0.0.1:PORT or [::1]:PORT", address)
	}
	return net.Listen("tcp", address)
}

// Reload is a Part that calls reload at each SIGHUP. Without such a part a SIGHUP ends
// the process.
func Reload(reload func(context.Context)) Part {
	return Part{Name: "reload", Serve: func(ctx context.Context) error {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangups:
				reload(ctx)
			}
		}
	}}
}
