// SPDX-License-Identifier: Apache-2.0

// Command nodes measures several gateways on one PostgreSQL: what one, two and three of them
// carry on this machine, which resource ends the growth, and how much later a device is woken
// whose sender is connected to another gateway.
//
//	go run ./bench/nodes            # three rounds, some five minutes
//	go run ./bench/nodes -quick     # one round of one and two gateways, short
//
// The gateways are the daemon as it is shipped, with keys in a token, a bulletin and a
// policy bundle under which every message is labelled; only the bounds on what a device may
// send are raised. The server is PostgreSQL with its default settings: every commit is on
// disk before it is answered. Beside them, in the same run, stands a gateway that has such a
// server to itself ("alone"). The clients are one lean process that checks order and completeness.
//
// For the rate, pairs of a sender and a receiver keep messages under way; senders are
// spread over the gateways, and so are the receivers of each gateway's senders: of N
// gateways, one in N messages stays where it came in. For the wake-up, messages go one at
// a time, by turns to a receiver at the sender's gateway and to one at another; what is
// measured is from the moment before the sender writes to that at which the receiver has it.
//
// nodes.md, beside this folder, says what the figures mean.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"valise/bench/lean"
	"valise/internal/stage"
)

// limit ends the program whatever happens.
const limit = 30 * time.Minute

const domain = "interieur.example"

// A plan is how much is measured.
type plan struct {
	rounds   int
	gateways []int // 0: one that has its database to itself
	pairs    int
	flight   int // messages under way of each pair
	length   time.Duration
	wakes    int // messages to each of the two receivers
}

var (
	whole = plan{rounds: 3, gateways: []int{0, 1, 2, 3}, pairs: 36, flight: 16, length: 6 * time.Second, wakes: 1500}
	quick = plan{rounds: 1, gateways: []int{1, 2}, pairs: 4, flight: 4, length: 300 * time.Millisecond, wakes: 50}
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "load" {
		exit(loadMain(os.Args[2]))
	}
	small := flag.Bool("quick", false, "one round, one and two gateways, short")
	rounds := flag.Int("rounds", 0, "how often everything is measured; 0: as planned")
	flag.Parse()
	p := whole
	if *small {
		p = quick
	}
	if *rounds > 0 {
		p.rounds = *rounds
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, p)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodes:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A bench holds what all measurements share.
type bench struct {
	plan
	dir, bin, self string
	authority      *lean.Authority
	token          *stage.Token
	all            results
}

func run(ctx context.Context, p plan) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b := &bench{plan: p, all: make(results)}
	// /tmp may be in memory, which does not sync.
	dir, err := os.MkdirTemp("/var/tmp", "vn")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir, b.bin = dir, filepath.Join(dir, "bin")
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for round := range b.rounds {
		for i := range b.gateways {
			n := b.gateways[(round+i)%len(b.gateways)]
			if err := b.measure(ctx, n, round); err != nil {
				return fmt.Errorf("%s: %w", title(n), err)
			}
		}
	}
	return b.report(os.Stdout)
}

// prepare makes what gateways and clients need.
func (b *bench) prepare(ctx context.Context) (err error) {
	var fs unix.Statfs_t
	if err := errors.Join(os.Chmod(b.dir, 0o711), unix.Statfs(b.dir, &fs)); err != nil { // PostgreSQL runs as somebody else
		return err
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is in memory, where nothing is durable: mount a disk there", b.dir)
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.bin+"/", "valise/cmd/valise-gatewayd").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	if b.authority, err = lean.NewAuthority(domain); err != nil {
		return err
	}
	if err := errors.Join(b.authority.Enact(), b.authority.Save(b.dir)); err != nil {
		return err
	}
	s, err := stage.New(stage.Config{Bin: b.bin, Dir: b.dir})
	if err != nil {
		return err
	}
	b.token, err = s.NewToken(ctx, "bench")
	return err
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs
	}
	return string(text)
}

// title names a measurement.
func title(gateways int) string {
	switch gateways {
	case 0:
		return "alone"
	case 1:
		return "1 node"
	}
	return fmt.Sprint(gateways, " nodes")
}
