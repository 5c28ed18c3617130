// SPDX-License-Identifier: Apache-2.0

// Testsum runs `go vet` and `go test -json` and tells what came of it: a line for each
// package as it ends, the whole output of what failed, and at the end
//
//	tests: P passed, F failed, S skipped
//
// Usage, from the module's root:
//
//	go run ./internal/testsum [-skips FILE] [-vet PACKAGES] -- ARGUMENTS OF go test
//
// What counts as one test is the smallest thing that has a name: a test
// without subtests, or a subtest. A test with subtests is told by them, and
// counts itself only when it fails or skips although none of them did. A fuzz
// target is one test, however many seeds it has. A package that does not
// build, a test that never ended, and a package that fails without a failing
// test each count as one failure, and so does go vet, so that nothing is green by absence.
//
// The exit code is 0 only when nothing failed, something ran, and every skip
// is one that FILE allows (see scripts/skips.txt).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	log := func(err error) { fmt.Fprintln(os.Stderr, "testsum:", err) }
	skips := flag.String("skips", "", "`file` with the skips that are allowed")
	vet := flag.String("vet", "", "`packages` that go vet looks at first, separated by spaces")
	flag.Parse()
	var rules []skipRule
	if *skips != "" {
		f, err := os.Open(*skips)
		if err == nil {
			rules, err = parseSkips(f, conditions())
		}
		if err != nil {
			log(err)
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, os.Stdout, rules, strings.Fields(*vet), flag.Args())
	stop()
	if err != nil {
		log(err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// run vets the packages named, starts go test, follows its events and prints the summary. It is true
// when everything that ran passed.
func run(ctx context.Context, out io.Writer, rules []skipRule, vet, args []string) (bool, error) {
	c := newCounter(out)
	if len(vet) > 0 {
		if err := goVet(ctx, out, vet); err != nil {
			c.failed++
			c.failures = append(c.failures, "go vet: "+err.Error())
		}
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("go test does not start: %w", err)
	}
	before := c.failed
	followErr := c.follow(stdout)
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		followErr = errors.Join(followErr, waitErr)
	}
	c.finish(waitErr != nil && c.failed == before)
	return c.summary(rules), followErr
}

func goVet(ctx context.Context, out io.Writer, packages []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"vet"}, packages...)...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}
