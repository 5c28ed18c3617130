// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"valise/attest"
	"valise/enroll/ceremony"
	"valise/hsm"
	"valise/identity"
	"valise/internal/daemon"
)

// Config is the configuration file (TOML). Unknown keys are errors. Relative paths
// are relative to the file's own directory. A whole file:
//
//	domain = "interieur.example"
//	url    = "https://enroll.interieur.example:8443"
//	data   = "/var/lib/valise-enrolld"
//	audit  = "/var/log/valise/enrolld-audit.jsonl"
//
//	[token]
//	uri        = "pkcs11:token=valise?module-path=/usr/lib/softhsm/libsofthsm2.so"
//	pin-source = "/etc/valise/enrolld.pin"
//
// With [root-token] and [tls-token], of the same form, the root key and the HTTPS key
// are in tokens of their own.
type Config struct {
	// Domain is the part behind the "@" of everybody's address. The authority
	// issues for no other. It stands in the root's name, so it never changes.
	Domain string `toml:"domain"`

	// URL is where devices find the authority: https://HOST or https://HOST:PORT.
	// It stands in invitations and is signed in every request. HOST is also the
	// first name in the HTTPS certificate.
	URL string `toml:"url"`

	// Names are further DNS names or IP addresses for the HTTPS certificate.
	Names []string `toml:"names"`

	// Listen is the address to answer at; default ":8443".
	Listen string `toml:"listen"`

	// Admin is the address of /healthz and /metrics, a loopback one; default
	// none.
	Admin string `toml:"admin"`

	// Data is the directory of the database, root.pem and chain.pem. init makes
	// it, readable by its owner only.
	Data string `toml:"data"`

	// Database is an SQLite file, default "authority.db" in data; or the connection
	// string of a PostgreSQL database, which several daemons may share:
	// "host=/run/postgresql dbname=valise". It must not hold a password.
	Database string `toml:"database"`

	// DatabaseSource is, in place of database, a file with a connection string,
	// readable by its owner only.
	DatabaseSource string `toml:"database-source"`

	// Audit is the file of the audit stream: one JSON object a line, appended.
	// Nothing is issued while it cannot be written.
	Audit string `toml:"audit"`

	// Syslog is where a copy of the audit stream goes, in the form of RFC 5424: server is
	// unix:///dev/log, tcp://HOST:PORT (RFC 6587) or tls://HOST:PORT (RFC 5425); roots
	// is for TLS, a PEM file; enterprise is your private
	// enterprise number. Nothing waits for the collector; what it misses is counted,
	// and the file says so. Default: nowhere.
	Syslog daemon.Syslog `toml:"syslog"`

	// LogLevel is debug, info, warn or error; default info. The log goes to
	// standard error.
	LogLevel daemon.Level `toml:"log-level"`

	// Drain is how long running requests may take after SIGTERM; default "10s".
	Drain daemon.Duration `toml:"drain"`

	Token        TokenConfig            `toml:"token"`
	RootToken    OtherTokenConfig       `toml:"root-token"`
	TLSToken     OtherTokenConfig       `toml:"tls-token"`
	Device       DeviceConfig           `toml:"device"` // of an authority without officers
	Gateway      GatewayConfig          `toml:"gateway"`
	Bulletin     BulletinConfig         `toml:"bulletin"`
	Endorsements EndorsementConfig      `toml:"endorsements"` // of an authority without officers
	Appraisal    attest.AppraisalPolicy `toml:"appraisal"`    // the same; see that type; default: its zero value

	// OfficerAppraisal decides which cards officers are appointed with, where
	// there are officers: slot 9c, PIN every time, and what it adds to that.
	OfficerAppraisal attest.AppraisalPolicy `toml:"officer-appraisal"`

	Limits LimitConfig `toml:"limits"`
}

// TokenConfig says where the authority's keys are. Where officers decide, profiles,
// endorsements and appraisal policy are those that they signed, and what this file
// says about them is not used.
type TokenConfig struct {
	// URI names the PKCS#11 token (RFC 7512), by label or serial number.
	URI string `toml:"uri"`

	// PINSource is the file with the token's PIN, readable by its owner only.
	PINSource string `toml:"pin-source"`

	// RootKey, IssuerKey and TLSKey are the labels of the keys that init makes;
	// default "valise-root", "valise-issuer", "valise-enrolld-tls".
	RootKey   string `toml:"root-key"`
	IssuerKey string `toml:"issuer-key"`
	TLSKey    string `toml:"tls-key"`

	// BulletinKey signs bulletins, LedgerKey (Ed25519) the ledger's checkpoints;
	// default "valise-bulletin" and "valise-ledger".
	BulletinKey string `toml:"bulletin-key"`
	LedgerKey   string `toml:"ledger-key"`

	// Algorithm is that of all but the ledger's: "P-384" (default) or "P-256".
	Algorithm string `toml:"algorithm"`
}

// OtherTokenConfig names another token for one of the keys.
//
// [root-token] is for the root key. Only init and the manifest commands open it:
// between them it lies in a safe.
//
// [tls-token] is for the HTTPS key, which can be in a smaller device in the same
// machine, like its TPM (tpm:). The desk then stays open while the HSM is away:
// nothing is issued, but an officer's suspension is taken and passed on.
//
// Without them these keys are in the token of all others.
type OtherTokenConfig struct {
	// URI and PINSource are as in TokenConfig; both or neither, but for a TPM
	// without a PIN.
	URI       string `toml:"uri"`
	PINSource string `toml:"pin-source"`
}

// Apart reports whether the key has a token of its own.
func (c *OtherTokenConfig) Apart() bool { return c.URI != "" }

func (c *OtherTokenConfig) check(name string) error {
	tpm := strings.HasPrefix(c.URI, "tpm:")
	switch {
	case c.URI == "" && c.PINSource != "":
		return fmt.Errorf("%s: uri and pin-source belong together", name)
	case !c.Apart():
		return nil
	case !tpm && !strings.HasPrefix(c.URI, "pkcs11:"):
		return fmt.Errorf("%s.uri: want a PKCS#11 token (pkcs11:token=…?module-path=…) or a TPM (tpm:)", name)
	case !tpm && c.PINSource == "":
		return fmt.Errorf("%s: uri and pin-source belong together: give both or neither", name)
	}
	return nil
}

// BulletinConfig says how gateways are told of standings.
type BulletinConfig struct {
	// Heartbeat is the longest pause between two bulletins; default "30s". A
	// gateway that misses several knows that it knows too little, and so do devices:
	// they relax by it, so that it is long only where bulletins are carried by hand.
	Heartbeat daemon.Duration `toml:"heartbeat"`

	// RestoreGateways is how many different gateways must have told what they
	// know before an authority that was restored from a backup goes on; default
	// 1. -1 asks none: for when there is no gateway left.
	RestoreGateways int `toml:"restore-gateways"`
}

// DeviceConfig is the profile of devices' certificates.
type DeviceConfig struct {
	// Profile is its name; default "device". An order keeps to the profile that
	// it was made under.
	Profile string `toml:"profile"`

	// Validity of a certificate; default "168h", at least "10m" and at most
	// "9528h" (397 days).
	Validity daemon.Duration `toml:"validity"`

	// Approvals is how many officers must approve a certificate; default 0.
	// With more, orders wait in "processing".
	Approvals int `toml:"approvals"`
}

// GatewayConfig is the profile of gateways' and of the authority's own HTTPS
// certificates.
type GatewayConfig struct {
	// Validity of a certificate; default "2160h".
	Validity daemon.Duration `toml:"validity"`
}

// EndorsementConfig says whose word is taken for hardware.
type EndorsementConfig struct {
	// BuiltIn takes the vendors' published roots; default true.
	BuiltIn bool `toml:"built-in"`

	// Roots are PEM files of further roots and intermediates.
	Roots []string `toml:"roots"`
}

// LimitConfig bounds what strangers may do.
type LimitConfig struct {
	// PerSecond and Burst bound the requests of one address; default 50 and 200.
	PerSecond float64 `toml:"per-second"`
	Burst     int     `toml:"burst"`

	// Connections bounds the open connections; default 512. PerAddress bounds
	// those of one address, so that nobody takes them all; default 64.
	Connections int `toml:"connections"`
	PerAddress  int `toml:"connections-per-address"`
}

func loadConfig(path string) (*Config, error) {
	c := &Config{
		Listen: ":8443",
		Token: TokenConfig{
			RootKey: "valise-root", IssuerKey: "valise-issuer", TLSKey: "valise-enrolld-tls",
			BulletinKey: "valise-bulletin", LedgerKey: "valise-ledger", Algorithm: "P-384",
		},
		Device:       DeviceConfig{Profile: "device"},
		Endorsements: EndorsementConfig{BuiltIn: true},
		Bulletin:     BulletinConfig{Heartbeat: daemon.Duration{Duration: 30 * time.Second}},
		Limits:       LimitConfig{Connections: 512, PerAddress: 64},
	}
	if err := daemon.LoadTOML(path, c); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	c.resolve(dir)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("configuration: %s: %w", path, err)
	}
	return c, nil
}

// resolve makes paths absolute.
func (c *Config) resolve(dir string) {
	c.resolveDatabase(dir)
	paths := []*string{&c.Data, &c.DatabaseSource, &c.Audit, &c.Token.PINSource, &c.RootToken.PINSource, &c.TLSToken.PINSource}
	paths = append(paths, c.Syslog.Paths()...)
	for i := range c.Endorsements.Roots {
		paths = append(paths, &c.Endorsements.Roots[i])
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func (c *Config) check() error {
	if err := identity.CheckDomain(c.Domain); err != nil {
		return fmt.Errorf("domain: %w", err)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.String() != "https://"+u.Host {
		return fmt.Errorf("url: %q is not https://HOST or https://HOST:PORT", c.URL)
	}
	if err := c.checkDatabase(); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"data": c.Data, "audit": c.Audit, "token.uri": c.Token.URI, "token.pin-source": c.Token.PINSource,
		"device.profile": c.Device.Profile,
	} {
		if value == "" {
			return errors.New(name + " is not set")
		}
	}
	if err := c.checkTokens(); err != nil {
		return err
	}
	if err := c.Syslog.Check("valise-enrolld"); err != nil {
		return err
	}
	if !ceremony.CheckProfileName(c.Device.Profile) {
		return fmt.Errorf("device.profile: %.40q: a name takes up to 32 of a-z 0-9 and hyphens", c.Device.Profile)
	}
	if c.Device.Approvals < 0 {
		return errors.New("device.approvals is negative")
	}
	if err := c.checkTimes(); err != nil {
		return err
	}
	if !c.Endorsements.BuiltIn && len(c.Endorsements.Roots) == 0 {
		return errors.New("endorsements: without built-in roots and without roots nobody can enroll")
	}
	if err := c.Limits.check(); err != nil {
		return err
	}
	if _, err := ceremony.OfficerPolicy(c.OfficerAppraisal); err != nil {
		return fmt.Errorf("officer-appraisal: %w", err)
	}
	return c.Appraisal.Check()
}

func (c *Config) checkTokens() error {
	seen := make(map[string]bool)
	for _, k := range []struct{ name, label string }{
		{"root-key", c.Token.RootKey},
		{"issuer-key", c.Token.IssuerKey},
		{"tls-key", c.Token.TLSKey},
		{"bulletin-key", c.Token.BulletinKey},
		{"ledger-key", c.Token.LedgerKey},
	} {
		if k.label == "" {
			return fmt.Errorf("token.%s is not set", k.name)
		}
		if seen[k.label] {
			return fmt.Errorf("token.%s: each key needs a label of its own, and %q is another one's", k.name, k.label)
		}
		seen[k.label] = true
	}
	if !strings.HasPrefix(c.Token.URI, "pkcs11:") {
		return errors.New("token.uri: an authority's keys are in a PKCS#11 token: pkcs11:token=…?module-path=…")
	}
	for name, other := range map[string]*OtherTokenConfig{"root-token": &c.RootToken, "tls-token": &c.TLSToken} {
		if err := other.check(name); err != nil {
			return err
		}
		if other.URI == c.Token.URI {
			return fmt.Errorf("%s.uri: this is the token of all others: leave [%s] out, or name another one", name, name)
		}
	}
	if c.RootToken.Apart() && c.RootToken.URI == c.TLSToken.URI {
		return errors.New("tls-token.uri: this is the root's token, which lies in a safe while the daemon runs")
	}
	_, err := c.algorithm()
	return err
}

// Bounds on durations: a certificate that is over before a card was touched twice is
// of no use, and one that outlives a year and a month is not short-lived; a heartbeat
// costs a signature of the token, and where bulletins are carried by hand it is as long
// as the way.
const (
	minValidity, maxValidity   = 10 * time.Minute, 397 * 24 * time.Hour
	maxGatewayValidity         = 2 * 366 * 24 * time.Hour
	minHeartbeat, maxHeartbeat = time.Second, 7 * 24 * time.Hour
	maxPerSecond, maxConns     = 1e6, 1_000_000
)

func (c *Config) checkTimes() error {
	for _, v := range []struct {
		name           string
		value          time.Duration
		least, largest time.Duration
		optional       bool // zero is the default
	}{
		{"device.validity", c.Device.Validity.Duration, minValidity, maxValidity, true},
		{"gateway.validity", c.Gateway.Validity.Duration, minValidity, maxGatewayValidity, true},
		{"bulletin.heartbeat", c.Bulletin.Heartbeat.Duration, minHeartbeat, maxHeartbeat, false},
	} {
		if v.optional && v.value == 0 {
			continue
		}
		if v.value < v.least || v.value > v.largest || v.value%time.Second != 0 {
			return fmt.Errorf("%s: %v, want whole seconds from %v to %v", v.name, v.value, v.least, v.largest)
		}
	}
	return nil
}

// check refuses what would switch a bound off: comparisons with NaN are false.
func (l *LimitConfig) check() error {
	if !(l.PerSecond >= 0 && l.PerSecond <= maxPerSecond) {
		return fmt.Errorf("limits.per-second: %v, want 0 (the default) to %v", l.PerSecond, maxPerSecond)
	}
	for name, n := range map[string]int{"burst": l.Burst, "connections": l.Connections - 1, "connections-per-address": l.PerAddress - 1} {
		if n < 0 || n >= maxConns {
			return fmt.Errorf("limits.%s: values must be positive and at most %d", name, maxConns)
		}
	}
	return nil
}

func (c *Config) algorithm() (hsm.Algorithm, error) {
	switch c.Token.Algorithm {
	case "P-384":
		return hsm.P384, nil
	case "P-256":
		return hsm.P256, nil
	}
	return 0, fmt.Errorf("token.algorithm: %q is neither \"P-384\" nor \"P-256\"", c.Token.Algorithm)
}

// hosts are the names in the HTTPS certificate.
func (c *Config) hosts() []string {
	u, err := url.Parse(c.URL)
	if err != nil { // check has parsed it
		return nil
	}
	return append([]string{u.Hostname()}, c.Names...)
}

// openAudit opens the audit stream, with a copy for the collector if there is one.
func (c *Config) openAudit() (*daemon.Audit, error) {
	return daemon.OpenAuditWith(c.Audit, c.Syslog, "valise-enrolld", daemon.NewLog(os.Stderr, c.LogLevel))
}

func (c *Config) path(name string) string { return filepath.Join(c.Data, name) }
