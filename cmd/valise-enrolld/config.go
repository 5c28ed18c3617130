// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"valise/attest"
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

	// Audit is the file of the audit stream: one JSON object a line, appended.
	// Nothing is issued while it cannot be written.
	Audit string `toml:"audit"`

	// LogLevel is debug, info, warn or error; default info. The log goes to
	// standard error.
	LogLevel daemon.Level `toml:"log-level"`

	// Drain is how long running requests may take after SIGTERM; default "10s".
	Drain daemon.Duration `toml:"drain"`

	Token        TokenConfig            `toml:"token"`
	Device       DeviceConfig           `toml:"device"`
	Gateway      GatewayConfig          `toml:"gateway"`
	Endorsements EndorsementConfig      `toml:"endorsements"`
	Appraisal    attest.AppraisalPolicy `toml:"appraisal"` // see that type; default: its zero value
	Limits       LimitConfig            `toml:"limits"`
}

// TokenConfig says where the authority's keys are.
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

	// Algorithm is that of all three: "P-384" (default) or "P-256".
	Algorithm string `toml:"algorithm"`
}

// DeviceConfig is the profile of devices' certificates.
type DeviceConfig struct {
	// Profile is its name; default "device". An order keeps to the profile that
	// it was made under.
	Profile string `toml:"profile"`

	// Validity of a certificate; default "168h".
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

	// Connections bounds the open connections; default 512.
	Connections int `toml:"connections"`
}

func loadConfig(path string) (*Config, error) {
	c := &Config{
		Listen: ":8443",
		Token: TokenConfig{
			RootKey: "valise-root", IssuerKey: "valise-issuer", TLSKey: "valise-enrolld-tls", Algorithm: "P-384",
		},
		Device:       DeviceConfig{Profile: "device"},
		Endorsements: EndorsementConfig{BuiltIn: true},
		Limits:       LimitConfig{Connections: 512},
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
	paths := []*string{&c.Data, &c.Audit, &c.Token.PINSource}
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
	for name, value := range map[string]string{
		"data": c.Data, "audit": c.Audit, "token.uri": c.Token.URI, "token.pin-source": c.Token.PINSource,
		"token.root-key": c.Token.RootKey, "token.issuer-key": c.Token.IssuerKey, "token.tls-key": c.Token.TLSKey,
		"device.profile": c.Device.Profile,
	} {
		if value == "" {
			return errors.New(name + " is not set")
		}
	}
	if !strings.HasPrefix(c.Token.URI, "pkcs11:") {
		return errors.New("token.uri: an authority's keys are in a PKCS#11 token: pkcs11:token=…?module-path=…")
	}
	if c.Token.RootKey == c.Token.IssuerKey || c.Token.RootKey == c.Token.TLSKey || c.Token.IssuerKey == c.Token.TLSKey {
		return errors.New("token: the three keys need three labels")
	}
	if _, err := c.algorithm(); err != nil {
		return err
	}
	if c.Device.Approvals < 0 {
		return errors.New("device.approvals is negative")
	}
	if !c.Endorsements.BuiltIn && len(c.Endorsements.Roots) == 0 {
		return errors.New("endorsements: without built-in roots and without roots nobody can enroll")
	}
	if c.Limits.PerSecond < 0 || c.Limits.Burst < 0 || c.Limits.Connections < 1 {
		return errors.New("limits: values must be positive")
	}
	return c.Appraisal.Check()
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

func (c *Config) path(name string) string { return filepath.Join(c.Data, name) }
