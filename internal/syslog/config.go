// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
)

// A Config says where messages go. Server and Program are required.
type Config struct {
	// Server is unix:///dev/log, tcp://HOST:PORT or tls://HOST:PORT.
	Server string
	// Roots is a PEM file with the roots of a TLS collector's certificate; empty: those
	// of the system.
	Roots string
	// Enterprise is the number in the structured data's name, valise@NUMBER; zero means
	// 32473, which is for documentation (RFC 5612): set your own if you have one.
	Enterprise uint32
	// Program is the APP-NAME.
	Program string

	// Lost is called, never by two goroutines at a time, when messages begin to be
	// lost (n counts those so far, ended is false), and when that is over (n: all).
	// Nil: nobody is told.
	Lost func(n uint64, ended bool, why error)

	queue, bytes int // bounds, in tests; zero: those of limits.go
}

// A dialer opens connections to the collector.
type dialer struct {
	network string // unixgram or tcp
	address string
	tls     *tls.Config // nil: none
}

// Check says whether the configuration makes sense, without asking anybody.
func (c *Config) Check() error { _, err := c.dialer(); return err }

func (c *Config) dialer() (*dialer, error) {
	u, err := url.Parse(c.Server)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("syslog: server %q: want unix:///dev/log, tcp://HOST:PORT or tls://HOST:PORT", c.Server)
	}
	if u.Scheme != "tls" && c.Roots != "" {
		return nil, errors.New("syslog: roots belong to a server tls://HOST:PORT")
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || len(u.Path) < 2 {
			return nil, fmt.Errorf("syslog: server %q: want unix:///PATH", c.Server)
		}
		return &dialer{network: "unixgram", address: u.Path}, nil
	case "tcp", "tls":
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if u.Hostname() == "" || err != nil || port == 0 || u.Path != "" {
			return nil, fmt.Errorf("syslog: server %q: want %s://HOST:PORT", c.Server, u.Scheme)
		}
		d := &dialer{network: "tcp", address: u.Host}
		if u.Scheme == "tls" {
			d.tls, err = c.tlsConfig(u.Hostname())
		} else {
			err = nil
		}
		return d, err
	}
	return nil, fmt.Errorf("syslog: server %q: want unix:///dev/log, tcp://HOST:PORT or tls://HOST:PORT", c.Server)
}

// tlsConfig is as RFC 5425, Section 4.2.1, wants it: the collector proves who it is. This
// daemon shows no certificate: its keys are in hardware, for other uses.
func (c *Config) tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.Roots != "" {
		pem, err := os.ReadFile(c.Roots)
		if err != nil {
			return nil, fmt.Errorf("syslog: roots: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("syslog: roots: %s holds no certificate", c.Roots)
		}
	}
	return config, nil
}

// Dial connects once and closes the connection again: what a check of the configuration
// does. Nothing is sent.
func (c *Config) Dial(ctx context.Context) error {
	d, err := c.dialer()
	if err != nil {
		return err
	}
	l, err := d.dial(ctx)
	if err != nil {
		return err
	}
	return l.close()
}

func (d *dialer) dial(ctx context.Context) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, d.network, d.address)
	if err != nil {
		return nil, err
	}
	l := &line{conn: conn, raw: conn, datagrams: d.network == "unixgram"}
	if d.tls != nil {
		counted := &counting{Conn: conn}
		secure := tls.Client(counted, d.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		l.conn, l.counted = secure, counted
	}
	return l, nil
}
