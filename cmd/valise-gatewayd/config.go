// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"valise/gateway"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/internal/daemon"
)

// A Config is the configuration file. Relative paths are relative to the
// file's directory. See example.toml for each field's meaning.
type Config struct {
	Listen      []string `toml:"listen"`
	ListenTCP   []string `toml:"listen_tcp"`
	Name        string   `toml:"name"`
	Domain      string   `toml:"domain"`
	Roots       string   `toml:"roots"`
	Key         string   `toml:"key"`
	PINSource   string   `toml:"pin_source"`
	Certificate string   `toml:"certificate"`
	Data        string   `toml:"data"`

	Database       string `toml:"database"`
	DatabaseSource string `toml:"database_source"`
	Node           string `toml:"node"`

	Audit     string          `toml:"audit"`
	Syslog    daemon.Syslog   `toml:"syslog"`
	Admin     string          `toml:"admin"`
	Deny      string          `toml:"deny"`
	Bundle    string          `toml:"bundle"`
	LogLevel  daemon.Level    `toml:"log_level"`
	Drain     daemon.Duration `toml:"drain"`
	Authority Authority       `toml:"authority"`
	Limits    Limits          `toml:"limits"`
	Files     Files           `toml:"files"`
}

// Bounds of journal_bytes: small files are changed too often, and large ones are filled
// with zeros before they are used, and released late.
const (
	minJournal = 1 << 20
	maxJournal = 1 << 30
)

// Limits bound what devices may use.
type Limits struct {
	MessagesPerSecond float64         `toml:"messages_per_second"`
	Burst             int             `toml:"burst"`
	CommitsPerSecond  float64         `toml:"commits_per_second"`
	CommitBurst       int             `toml:"commit_burst"`
	BytesPerSecond    float64         `toml:"bytes_per_second"`
	BytesBurst        int             `toml:"bytes_burst"`
	Deliveries        float64         `toml:"deliveries_per_second"`
	DeliveriesBurst   int             `toml:"deliveries_burst"`
	Labels            []LabelLimit    `toml:"label"`
	AlarmAfter        int             `toml:"alarm_after"`
	AlarmWindow       daemon.Duration `toml:"alarm_window"`
	HoldAfter         int             `toml:"hold_after"`
	HoldFor           daemon.Duration `toml:"hold_for"`
	Connections       int             `toml:"connections"`
	Handshakes        int             `toml:"handshakes"`
	SourceHandshakes  int             `toml:"handshakes_per_source"`
	MailboxMessages   int             `toml:"mailbox_messages"`
	MailboxBytes      int64           `toml:"mailbox_bytes"`
	KeyPackages       int             `toml:"key_packages"`
	BlobBytes         uint64          `toml:"blob_bytes"`
	BlobExpiry        daemon.Duration `toml:"blob_expiry"`
	MailAge           daemon.Duration `toml:"mail_age"`
	Batch             int             `toml:"batch"`
	JournalBytes      int64           `toml:"journal_bytes"`
}

// A LabelLimit bounds what one device may send under one classification.
type LabelLimit struct {
	Classification string  `toml:"classification"`
	PerSecond      float64 `toml:"per_second"`
	Burst          int     `toml:"burst"`
}

// loadConfig reads the file and checks what every command needs.
func loadConfig(path string) (*Config, error) {
	cfg := new(Config)
	if err := daemon.LoadTOML(path, cfg); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	for _, field := range append(append(cfg.Syslog.Paths(), cfg.Files.paths()...), &cfg.Roots, &cfg.PINSource, &cfg.Certificate, &cfg.Data, &cfg.DatabaseSource, &cfg.Audit, &cfg.Deny, &cfg.Bundle, &cfg.Authority.Spool) {
		if *field != "" && !filepath.IsAbs(*field) {
			*field = filepath.Join(dir, *field)
		}
	}
	var missing []error
	for name, value := range map[string]string{"name": cfg.Name, "key": cfg.Key} {
		if value == "" {
			missing = append(missing, fmt.Errorf("configuration: %s: %q must be set", path, name))
		}
	}
	return cfg, errors.Join(missing...)
}

// checkServe checks what only serve needs.
func (c *Config) checkServe() error {
	var all []error
	if len(c.Listen) == 0 {
		all = append(all, errors.New(`configuration: "listen" must name at least one address`))
	}
	for name, value := range map[string]string{
		"domain": c.Domain, "roots": c.Roots, "certificate": c.Certificate, "data": c.Data, "audit": c.Audit,
	} {
		if value == "" {
			all = append(all, fmt.Errorf("configuration: %q must be set", name))
		}
	}
	if c.Domain != "" {
		all = append(all, identity.CheckDomain(c.Domain))
	}
	if _, err := c.tunnel(); err != nil {
		all = append(all, err)
	}
	all = append(all, c.checkDatabase(), c.Files.check(), c.Syslog.Check("valise-gatewayd"))
	if u := c.Authority.URL; u != "" && !strings.HasPrefix(u, "https://") {
		all = append(all, fmt.Errorf("configuration: authority: url %q: want https://HOST or https://HOST:PORT", u))
	}
	if err := c.Authority.tightening().Check(); err != nil {
		all = append(all, fmt.Errorf("configuration: authority: stale_first and stale_all: %w", err))
	}
	l := c.Limits
	for _, label := range l.Labels {
		if label.Classification == "" || label.PerSecond <= 0 || label.Burst < 1 {
			all = append(all, fmt.Errorf("configuration: limits: label %q: want a classification, per_second above 0, and a burst of at least 1", label.Classification))
		}
	}
	if slices.Min([]float64{
		l.MessagesPerSecond, float64(l.Burst), l.CommitsPerSecond, float64(l.CommitBurst), l.BytesPerSecond, float64(l.BytesBurst),
		l.Deliveries, float64(l.DeliveriesBurst), float64(l.AlarmAfter), float64(l.AlarmWindow.Duration), float64(l.HoldAfter),
		float64(l.HoldFor.Duration), float64(l.Connections), float64(l.Handshakes), float64(l.SourceHandshakes), float64(l.MailboxMessages),
		float64(l.MailboxBytes), float64(l.MailAge.Duration), float64(l.KeyPackages), float64(l.BlobExpiry.Duration), float64(l.Batch),
	}) < 0 {
		all = append(all, errors.New("configuration: limits must not be negative"))
	}
	if n := l.JournalBytes; n != 0 && (n < minJournal || n > maxJournal) {
		all = append(all, fmt.Errorf("configuration: limits: journal_bytes %d: want between %d and %d", n, minJournal, maxJournal))
	}
	return errors.Join(all...)
}

// openAudit opens the audit stream, with a copy for the collector if there is one.
func (c *Config) openAudit(log *slog.Logger) (*daemon.Audit, error) {
	return daemon.OpenAuditWith(c.Audit, c.Syslog, "valise-gatewayd", log)
}

func (c *Config) quota() mailbox.Quota {
	return mailbox.Quota{Messages: c.Limits.MailboxMessages, Bytes: c.Limits.MailboxBytes, Packages: c.Limits.KeyPackages}
}

func (c *Config) limits() gateway.Limits {
	labels := make(map[string]gateway.Rate)
	for _, l := range c.Limits.Labels {
		labels[l.Classification] = gateway.Rate{Rate: l.PerSecond, Burst: l.Burst}
	}
	return gateway.Limits{
		Bytes: c.Limits.BytesPerSecond, BytesBurst: c.Limits.BytesBurst,
		Deliveries: c.Limits.Deliveries, DeliveriesBurst: c.Limits.DeliveriesBurst, Labels: labels,
		AlarmAfter: c.Limits.AlarmAfter, AlarmWindow: c.Limits.AlarmWindow.Duration,
		HoldAfter: c.Limits.HoldAfter, HoldFor: c.Limits.HoldFor.Duration,
		Rate: c.Limits.MessagesPerSecond, Burst: c.Limits.Burst, Connections: c.Limits.Connections,
		Commits: c.Limits.CommitsPerSecond, CommitBurst: c.Limits.CommitBurst,
		Handshakes: c.Limits.Handshakes, HandshakesPerSource: c.Limits.SourceHandshakes,
		BlobQuota: c.Limits.BlobBytes, BlobExpiry: c.Limits.BlobExpiry.Duration, MailAge: c.Limits.MailAge.Duration,
		BlobTotal: c.Files.TotalBytes, BlobFloor: c.Files.DiskFloor,
	}
}
