// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// options are what a run is asked for.
type options struct {
	bin    string
	length time.Duration
	seed   uint64
	store  string
	disk   string
	nodes  int
	next   string
	only   string
	keep   bool

	failovers int

	records string
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built commands")
	flag.DurationVar(&o.length, "for", 20*time.Minute, "how long faults go on; 0 leaves the last act only")
	flag.Uint64Var(&o.seed, "seed", 0, "where all chance comes from; 0 draws one")
	flag.StringVar(&o.store, "store", journalStore, "the gateway's store: journal (its own), postgres, or both, half of the time each; cluster (PostgreSQL that fails over), or async (the control: one that loses)")
	flag.IntVar(&o.nodes, "nodes", 1, "how many nodes the gateway has, on one PostgreSQL")
	flag.StringVar(&o.next, "next", "", "folder of another valise-gatewayd, to which nodes are upgraded and back")
	flag.StringVar(&o.only, "only", "", "the one kind of fault that is dealt, again and again; empty: all")
	flag.IntVar(&o.failovers, "failovers", 5, "how often a cluster must have failed over, at least")
	flag.StringVar(&o.disk, "disk", "torn", "the disk of gateway and database: honest, torn (pieces of what was not synced survive) or lying")
	flag.BoolVar(&o.keep, "keep", false, "leave all files")
	flag.StringVar(&o.records, "records", "", "new folder for what the judge reads; one among the other files if empty")
	flag.Parse()
	os.Exit(o.main())
}

func (o *options) main() int {
	switch {
	case flag.NArg() > 0, o.length < 0, o.length > 24*time.Hour,
		o.disk != "honest" && o.disk != "torn" && o.disk != "lying",
		o.store != journalStore && o.store != postgresStore && o.store != bothStores && o.store != clusterStore && o.store != asyncStore,
		o.nodes < 1, o.nodes > 9, o.nodes > 1 && o.store == journalStore,
		o.store == bothStores && o.records != "":
		flag.Usage()
		return 2
	}
	if o.store == bothStores {
		return o.both()
	}
	if os.Getpid() != 1 {
		return outside(os.Stdout, os.Args[1:]...)
	}
	for o.seed == 0 {
		o.seed = rand.Uint64N(1 << 32)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	verdict, err := o.run(ctx)
	if err != nil {
		fmt.Printf("soak: failed: the run broke off (SOAK_SEED=%d): %v\n", o.seed, err)
		return 1
	}
	fmt.Println(verdict.line)
	return verdict.status
}

// outside starts this program again as the first process of its own namespaces, which
// end with it.
func outside(out io.Writer, args ...string) int {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM) // the inner half ends, and this one with it
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	}
	fmt.Fprintln(out, "soak: failed: the run could not be started:", err)
	return 1
}
