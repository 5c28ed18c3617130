// SPDX-License-Identifier: Apache-2.0

// Command message measures the way of a text from one official to another, end
// to end and its parts apart from each other:
//
//	go run ./bench/message
//
// End to end is from a line typed into a running `valise chat` to the line that a
// running `valise receive --follow` prints: both agents, the sender's card behind
// a real pcscd, the ratchets, QUIC on loopback, the gateway's store on a disk that
// syncs, and both vaults. Starting a command is left out; `valise send` starts one
// for each message. The texts are sent one after another, each when the one before
// has arrived.
//
// The parts: a P-384 signature of the card through pcscd; sealing and opening in a
// group of two on the default suite, without the signature; a Ping and its answer
// on a kept connection, from a third device; and one message into the gateway's
// store, synced. The cards are virtual: a real one needs about 0.1 s a signature.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"valise/internal/figure"
	"valise/internal/stage"
)

const (
	domain = "interieur.example"
	// rounds of each measurement; all together take some ten seconds.
	rounds = 300
	// warmUp rounds before them are not counted.
	warmUp = 20
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "message:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	// /tmp may be in memory, which does not sync.
	dir, err := os.MkdirTemp("/var/tmp", "vs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "bin") + "/"
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "valise/cmd/...").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	st, err := stage.New(stage.Config{Bin: bin, Dir: dir})
	if err != nil {
		return err
	}
	defer st.Close()
	o, err := newOffice(ctx, st)
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context) error{o.endToEnd, o.card, ratchet, o.network, func(ctx context.Context) error { return fsync(ctx, dir) }} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// repeat times rounds of f, and prints median and 99th percentile.
func repeat(name string, f func(i int) (time.Duration, error)) error {
	var list []time.Duration
	for i := range warmUp + rounds {
		d, err := f(i)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i >= warmUp {
			list = append(list, d)
		}
	}
	slices.Sort(list)
	for _, p := range []int{50, 99} {
		d := list[(len(list)*p+99)/100-1]
		if err := figure.Print(os.Stdout, fmt.Sprintf("message_%s_p%d", name, p), float64(d.Microseconds())/1000, "ms"); err != nil {
			return err
		}
	}
	return nil
}

// timed measures f.
func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}
