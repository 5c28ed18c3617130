// SPDX-License-Identifier: Apache-2.0

// Mutants proves that the tests notice when a check is gone. Every file
// mutants/*.patch removes one check and names the test that must turn red:
//
//	test: ./identity -run ^TestDeviceRefuses$
//	removes: the comparison of the address's domain with the authority's
//
//	diff --git a/identity/trust.go b/identity/trust.go
//	...
//
// The named tests are first run on the untouched tree, where each must pass.
// Then each patch is applied to a copy of the tree and its test is run again.
// It is killed when that test fails; a patch that does not apply, does not
// build, or whose test passes, skips or is not there, is not killed. The copy
// is of the working tree, so nothing has to be committed first.
//
//	go run ./internal/mutants [-min N] [-jobs N] [NAME ...]
//
// ends with the line "mutants: N killed, M survived" and exits 0 only when
// every mutant was killed and there were at least N of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	least := flag.Int("min", 1, "fail when there are fewer than `N` patches")
	jobs := flag.Int("jobs", 2, "run `N` mutants at a time")
	limit := flag.Duration("timeout", 4*time.Minute, "for each test run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := hunt(ctx, *least, *jobs, *limit, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func hunt(ctx context.Context, least, jobs int, limit time.Duration, names []string) error {
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	mutants, err := load(filepath.Join(root, "mutants"), names)
	if err != nil {
		return err
	}
	if len(names) == 0 && len(mutants) < least {
		return fmt.Errorf("%d patches in mutants/, at least %d are asked for", len(mutants), least)
	}
	r, err := newRunner(root, jobs, limit, os.Stdout)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.baseline(ctx, mutants); err != nil {
		return err
	}
	return r.run(ctx, mutants)
}
