// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"valise/bulletin"
	"valise/gateway/feed"
	"valise/internal/daemon"
)

// An Authority says where standings come from.
type Authority struct {
	URL   string          `toml:"url"`
	Spool string          `toml:"spool"`
	Grace daemon.Duration `toml:"grace"`

	Tunnel string `toml:"tunnel"`

	StaleFirst daemon.Duration `toml:"stale_first"`
	StaleAll   daemon.Duration `toml:"stale_all"`
}

// tightening says what a stale bulletin takes. Who follows no authority and sets nothing
// has no bulletin that could be stale.
func (a *Authority) tightening() bulletin.Tightening {
	t := bulletin.Tightening{First: a.StaleFirst.Duration, All: a.StaleAll.Duration}
	if a.URL == "" && t == (bulletin.Tightening{}) {
		return t
	}
	if t.First == 0 {
		t.First = bulletin.DefaultTightening.First
	}
	if t.All == 0 {
		t.All = max(t.First, bulletin.DefaultTightening.All)
	}
	return t
}

// tunnel is where devices get that reach nobody but this gateway: the authority,
// unless another address of it is named, or "none".
func (c *Config) tunnel() (hostport string, err error) {
	text := cmp.Or(c.Authority.Tunnel, c.Authority.URL)
	if text == "" || text == "none" {
		return "", nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", fmt.Errorf("configuration: authority: tunnel %q: want https://HOST or https://HOST:PORT, or none", text)
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), nil
}

var errRoots = errors.New("standings are followed under exactly one root")

// feedConfig is what the feed and the import command have in common.
func (c *Config) feedConfig() (feed.Config, error) {
	roots, err := readCertificates(c.Roots)
	if err != nil {
		return feed.Config{}, fmt.Errorf("roots: %w", err)
	}
	if len(roots) != 1 {
		return feed.Config{}, fmt.Errorf("roots: %s: %w, and it holds %d", c.Roots, errRoots, len(roots))
	}
	return feed.Config{Root: roots[0], Domain: c.Domain, Spool: c.spool()}, nil
}

func (c *Config) spool() string {
	if c.Authority.Spool != "" {
		return c.Authority.Spool
	}
	return filepath.Join(c.Data, "spool")
}

// openFeed opens the gateway's copy of the record. Under several roots there is
// none, unless it is asked for.
func (s *server) openFeed(ctx context.Context, d *daemon.Daemon, certificate *tls.Certificate) error {
	cfg, err := s.cfg.feedConfig()
	if errors.Is(err, errRoots) && s.cfg.Authority.URL == "" {
		s.log.Warn("standings are known by the deny list only", "reason", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	s.certificate.Store(certificate)
	cfg.Path, cfg.URL, cfg.Grace = filepath.Join(s.cfg.Data, "record.db"), s.cfg.Authority.URL, s.cfg.Authority.Grace.Duration
	cfg.Certificate, cfg.Event, cfg.Log, cfg.Metrics = s.certificate.Load, s.record, s.log, d.Metrics
	if s.feed, err = feed.Open(ctx, cfg); err != nil {
		return err
	}
	if cfg.URL != "" {
		d.Health.Add("bulletin", s.feed.Check)
	}
	return nil
}

// follow gives standings to the gateway as they change.
func (s *server) follow(ctx context.Context) error {
	if s.feed == nil {
		<-ctx.Done()
		return nil
	}
	return s.feed.Run(ctx)
}

type importCommand struct {
	Config string   `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
	Kind   string   `arg:"" enum:"record,manifest,bulletin,statement" help:"What the files are: ${enum}."`
	Files  []string `arg:"" type:"existingfile" placeholder:"FILE" help:"Files to take in, each one document."`
}

// documents are the kinds by what people call them.
var documents = map[string]feed.Document{
	"record": feed.DocumentRecord, "manifest": feed.DocumentManifest, "bulletin": feed.DocumentBulletin, "statement": feed.DocumentStatement,
}

// importLimit is how long the daemon may take to look; it looks five times a
// second. A large record takes longer to verify: a mebibyte a second at least.
const (
	importLimit = 10 * time.Second
	importRate  = 1 << 20
)

// Run lays documents into the spool of the gateway, which obeys them.
func (c *importCommand) Run(ctx context.Context) error {
	cfg, err := loadConfig(c.Config)
	if err == nil {
		err = cfg.checkServe()
	}
	if err != nil {
		return err
	}
	check, err := cfg.feedConfig()
	if err != nil {
		return err
	}
	var all []error
	for _, name := range c.Files {
		lay := layDocument
		if c.Kind == "record" {
			lay = layRecord
		}
		if err := importFile(ctx, check, documents[c.Kind], name, lay); err != nil {
			all = append(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(all...)
}

// layDocument checks a document and lays it into the spool.
func layDocument(cfg feed.Config, kind feed.Document, f io.ReadSeeker) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(f, feed.MaxDocument+1))
	if err != nil {
		return "", err
	}
	if raw = trimmed(raw); len(raw) > feed.MaxDocument {
		return "", errors.New("it is too large")
	}
	if err := feed.CheckDocument(kind, raw, cfg); err != nil {
		return "", err
	}
	return feed.Put(cfg.Spool, kind, raw)
}

// layRecord does the same with a file of the record, which may be large.
func layRecord(cfg feed.Config, _ feed.Document, f io.ReadSeeker) (string, error) {
	if err := feed.CheckRecord(f, cfg); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return feed.PutRecord(cfg.Spool, f)
}

func importFile(ctx context.Context, cfg feed.Config, kind feed.Document, name string, lay func(feed.Config, feed.Document, io.ReadSeeker) (string, error)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	path, err := lay(cfg, kind, f)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(importLimit + time.Duration(info.Size()/importRate)*time.Second)
	for time.Now().Before(deadline) {
		done, err := feed.Outcome(path)
		if err != nil {
			return err
		}
		if done {
			fmt.Printf("%s: taken in\n", name)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("it verifies and lies in %s, but the gateway did not take it in: is it running? It takes it in when it starts", cfg.Spool)
}

// trimmed drops the line end that editors put at the end of a file.
func trimmed(raw []byte) []byte {
	for len(raw) > 0 && (raw[len(raw)-1] == '\n' || raw[len(raw)-1] == '\r') {
		raw = raw[:len(raw)-1]
	}
	return raw
}
