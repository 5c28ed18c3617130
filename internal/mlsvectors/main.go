// SPDX-License-Identifier: Apache-2.0

// Mlsvectors runs package mls on the vectors that the MLS working group
// publishes, and counts them:
//
//	go run ./internal/mlsvectors
//
// It reads them from ../shared/vectors/mls, from the mls folder below the one that
// VALISE_VECTORS names, or from the folder that MLS_VECTORS names, which may hold any
// subset of the files, as NAME.json or NAME.json.gz. A file of another name is
// a failure, because no test would read it. The last line is
//
//	mls vectors: P passed, F failed, S skipped (suites 1, 2, 5, 7)
//
// One vector is one object of a file. A file that cannot be read counts as one
// failure. Skipped are vectors of the suites 3, 4 and 6 of RFC 9420, which
// package mls does not have. Suites are those of the vectors that ran; those
// of tree-math, deserialization and messages have none.
//
// The counts come from the events of `go test -json`, not from the tests
// themselves. The exit code is 0 only when nothing failed and something passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, os.Stdout, os.Getenv("MLS_VECTORS"))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mlsvectors:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// run follows one go test; folder is what MLS_VECTORS says. It is true when
// nothing failed and something passed.
func run(ctx context.Context, out io.Writer, folder string) (bool, error) {
	env := append(os.Environ(), "VALISE_REQUIRE=vectors")
	if folder != "" {
		// The test runs in the package's folder.
		abs, err := filepath.Abs(folder)
		if err != nil {
			return false, err
		}
		env = append(env, "MLS_VECTORS="+abs)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-vet=off", "-timeout=20m", "-run=^TestVectors", "valise/mls")
	cmd.Env, cmd.Stderr = env, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("go test does not start: %w", err)
	}
	c := newCount(out)
	followErr := c.follow(events)
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		followErr = errors.Join(followErr, waitErr)
	}
	if followErr != nil {
		return false, followErr
	}
	return c.summary(waitErr != nil), nil
}
