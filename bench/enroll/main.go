// SPDX-License-Identifier: Apache-2.0

// Command enroll measures attested enrollments, beside step-ca in the same run:
//
//	go run ./bench/enroll
//
// One enrollment is one order under an account that exists: five POSTs with a nonce
// each, evidence that is verified and appraised, a CSR, a certificate that is linted,
// recorded in the ledger, signed in SoftHSM and fetched. What is printed is how many
// of them a second one client and eight clients get, and how much processor time one
// costs: that of the daemon (the token is a library in it) and of PostgreSQL with all
// its backends. The clients' own time is left out; they run on the same machine, with
// golang.org/x/crypto/acme for both authorities.
//
// The yardstick is step-ca (stepca.mod) with the same client, the same evidence but
// for the identifier (it wants the card's serial number), a PostgreSQL cluster of its
// own with the same settings, and a key in the same token. It refuses P-384 in this
// format, so its row is P-256. It does less for a certificate: no evidence about 9d,
// no lint, no ledger, no audit stream.
//
// Five rounds in rotated order; the median counts, and ratios are of the same round.
// Without the speed that step-ca has shown elsewhere the yardstick is bent: then the
// program says "baseline invalid" and compares nothing.
package main

import (
	"context"
	"crypto/elliptic"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"valise/bench/daemons"
	"valise/enroll/enrolltest"
	"valise/internal/stage"
)

const (
	maxClients = 8

	// limit ends the program whatever happens.
	limit = 25 * time.Minute

	baseline = "stepca_postgres_p256"
	ours     = "valise_postgres_p256"
)

// clientCounts are how many clients there are at once; expected is what step-ca did
// with them on a quiet machine of two cores, and bent is how far below it may be.
var (
	clientCounts = []int{1, maxClients}
	expected     = map[int]float64{1: 13, maxClients: 40}
)

const bent = 0.75

func main() {
	rounds := flag.Int("rounds", 5, "how often everything is measured")
	length := flag.Duration("length", 4*time.Second, "of one measurement")
	only := flag.String("only", "", "measure these `servers` only, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *rounds, *length, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "enroll:", err)
		os.Exit(1)
	}
}

// A bench holds what all servers share.
type bench struct {
	dir, bin  string
	token     *stage.Token
	pin       string // file
	vendor    *enrolltest.Vendor
	vendorPEM string // file
}

func run(ctx context.Context, rounds int, length time.Duration, only string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// /tmp may be in memory, which does not sync.
	dir, err := os.MkdirTemp("/var/tmp", "vs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL runs as somebody else
		return err
	}
	b, err := newBench(ctx, dir)
	if err != nil {
		return err
	}
	servers, err := b.start(ctx, only)
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	if err != nil {
		return err
	}
	all := make(table)
	for round := range rounds {
		for i := range servers {
			s := servers[(round+i)%len(servers)]
			for _, n := range clientCounts {
				m, err := s.measure(ctx, n, length)
				if err != nil {
					return fmt.Errorf("%s, %d clients: %w", s.name, n, err)
				}
				fmt.Printf("round %d  %-21s %d clients  %6.1f/s  %6.2f CPU-ms (daemon %6.2f)  p50 %5.1f ms\n", round+1, s.name, n, m.rate, m.cpu, m.daemon, m.p50)
				all[cell{s.name, n}] = append(all[cell{s.name, n}], m)
			}
		}
	}
	_, compare := all[cell{baseline, 1}]
	_, measured := all[cell{ours, 1}]
	return report(servers, all, compare && measured)
}

func newBench(ctx context.Context, dir string) (*bench, error) {
	b := &bench{dir: dir, bin: filepath.Join(dir, "bin"), vendor: enrolltest.NewVendor(maker{})}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.bin+"/", "valise/cmd/valise-enrolld").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	st, err := stage.New(stage.Config{Bin: b.bin, Dir: dir})
	if err != nil {
		return nil, err
	}
	if b.token, err = st.NewToken(ctx, "bench"); err != nil {
		return nil, err
	}
	// This process, too, makes a key in the token.
	if err := os.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "token-bench", "softhsm2.conf")); err != nil {
		return nil, err
	}
	b.pin, b.vendorPEM = filepath.Join(dir, "pin"), filepath.Join(dir, "vendor.pem")
	return b, os.WriteFile(b.vendorPEM, b.vendor.PEM(), 0o600)
}

// start starts every server; what was started is returned even with an error.
func (b *bench) start(ctx context.Context, only string) (servers []*server, err error) {
	makers := []struct {
		name string
		make func(name string) (*server, error)
	}{
		{baseline, func(name string) (*server, error) {
			if err := b.buildStepCA(ctx); err != nil {
				return nil, err
			}
			return b.newStepCA(ctx, name)
		}},
		{ours, func(name string) (*server, error) { return b.newValise(ctx, name, elliptic.P256(), "postgres") }},
		{"valise_postgres_p384", func(name string) (*server, error) { return b.newValise(ctx, name, elliptic.P384(), "postgres") }},
		{"valise_sqlite_p256", func(name string) (*server, error) { return b.newValise(ctx, name, elliptic.P256(), "sqlite") }},
		{"valise_sqlite_p384", func(name string) (*server, error) { return b.newValise(ctx, name, elliptic.P384(), "sqlite") }},
	}
	for _, m := range makers {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		s, err := m.make(m.name)
		if s != nil {
			servers = append(servers, s)
		}
		if err != nil {
			return servers, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("there is no server %q", only)
	}
	return servers, nil
}

// A measurement is one server's work for some clients, once.
type measurement struct {
	rate   float64 // certificates a second
	cpu    float64 // milliseconds of processor time for one
	daemon float64 // the daemon's part of it
	p50    float64 // milliseconds from the first POST to the certificate
}

// measure has n clients enroll, each one certificate after another, and counts those
// that begin within the time. A first one of each client is not counted.
func (s *server) measure(ctx context.Context, n int, length time.Duration) (m measurement, err error) {
	if err := s.parallel(n, func(c *client) error { return c.enroll(ctx) }); err != nil {
		return m, err
	}
	before, err := s.used()
	if err != nil {
		return m, err
	}
	var mu sync.Mutex
	var took []time.Duration
	begin := time.Now()
	err = s.parallel(n, func(c *client) error {
		for time.Since(begin) < length {
			at := time.Now()
			if err := c.enroll(ctx); err != nil {
				return err
			}
			mu.Lock()
			took = append(took, time.Since(at))
			mu.Unlock()
		}
		return nil
	})
	elapsed := time.Since(begin)
	if err != nil {
		return m, errors.Join(err, s.daemon.Ended())
	}
	after, err := s.used()
	if err != nil {
		return m, err
	}
	slices.Sort(took)
	each := func(before, after time.Duration) float64 {
		return float64((after - before).Microseconds()) / 1000 / float64(len(took))
	}
	return measurement{
		rate: float64(len(took)) / elapsed.Seconds(),
		cpu:  each(before.all, after.all), daemon: each(before.daemon, after.daemon),
		p50: float64(took[len(took)/2].Microseconds()) / 1000,
	}, nil
}

// usage is processor time since the start.
type usage struct{ all, daemon time.Duration }

// used reads the processor time of the daemon, in which the token is a library, and
// of the database.
func (s *server) used() (u usage, err error) {
	if u.daemon, err = daemons.CPU(s.daemon); err != nil || s.cluster == nil {
		return usage{u.daemon, u.daemon}, err
	}
	u.all, err = daemons.CPU(s.daemon, s.cluster.Process)
	return u, err
}

func (s *server) parallel(n int, do func(*client) error) error {
	failed := make(chan error, n)
	for _, c := range s.clients[:n] {
		go func() { failed <- do(c) }()
	}
	var all error
	for range n {
		all = errors.Join(all, <-failed)
	}
	return all
}
