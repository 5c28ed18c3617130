// SPDX-License-Identifier: Apache-2.0

// Command scale measures what one message costs a gateway's store as devices and stored
// mail grow:
//
//	go run ./bench/scale                      # to 100,000 devices and 10 million messages, some half an hour
//	go run ./bench/scale -quick               # to 2,000 devices and 20,000 messages, seconds
//	go run ./bench/scale -stores postgresql   # one store: journal, postgresql, nodes
//
// Each step of the curve is a number of devices that have arrived and a number of
// messages that wait for some of them. There, senders drawn at random write to
// recipients drawn at random, in batches of 64 as the committer of a busy gateway makes
// them, each recipient acknowledging what the batch before brought. Counted is the
// processor time of everything that works at it: this process, the mover behind the
// journal, and all processes of the database server. Then mailboxes with a backlog are
// drained as devices do it, and the cost of that is counted too.
//
// The messages that wait are of 256 bytes, because ten million of them have to fit on an
// ordinary disk; those that are measured have 1 KiB. Left out is everything above the
// store: connections, admission, groups. bench/connect and bench/relay measure those.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A plan is the curve to measure.
type plan struct {
	devices []int // rising
	stored  []int // rising; at the last number of devices
	put     int   // messages that are measured at each step
	drained int   // messages that are drained at each step
	rounds  int   // of which the median is told
}

var (
	whole = plan{
		devices: []int{1_000, 10_000, 100_000}, stored: []int{100_000, 1_000_000, 10_000_000},
		put: 64_000, drained: 50_000, rounds: 3,
	}
	quick = plan{devices: []int{200, 2_000}, stored: []int{4_000, 20_000}, put: 3_200, drained: 1_000, rounds: 1}
)

func main() {
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range openers {
			if !yield(name) {
				return
			}
		}
	})
	isQuick := flag.Bool("quick", false, "a curve of seconds, to see whether everything works")
	stores := flag.String("stores", strings.Join(names, ","), "which stores, by comma")
	most := flag.Int("stored", 0, "stop at so many stored messages; 0: as the curve says")
	dir := flag.String("dir", "/var/tmp", "where databases lie while they are measured; some 8 GB")
	flag.Parse()
	p := whole
	if *isQuick {
		p = quick
	}
	if *most > 0 {
		p.stored = slices.DeleteFunc(slices.Clone(p.stored), func(n int) bool { return n > *most })
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, name := range strings.Split(*stores, ",") {
		if err := measure(ctx, os.Stdout, p, name, *dir); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", name+":", err)
			os.Exit(1)
		}
	}
}

// measure takes one store along the curve.
func measure(ctx context.Context, out io.Writer, p plan, name, parent string) (err error) {
	open, ok := openers[name]
	if !ok {
		return fmt.Errorf("there is no such store: %s", name)
	}
	dir, err := os.MkdirTemp(parent, "vs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := open(ctx, filepath.Join(dir, "db"))
	if err != nil {
		return err
	}
	defer s.close()
	w := newWorld(s)
	curve := &curve{out: out, name: name}
	for _, n := range p.devices {
		if err := w.grow(ctx, n); err != nil {
			return err
		}
		if err := curve.step(ctx, w, p); err != nil {
			return err
		}
	}
	for _, n := range p.stored {
		if err := w.store(ctx, n); err != nil {
			return err
		}
		if err := curve.step(ctx, w, p); err != nil {
			return err
		}
	}
	return curve.end()
}
