// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A runner owns the copies of the tree.
type runner struct {
	limit time.Duration
	out   io.Writer
	env   []string
	lock  *os.File
	trees chan *tree // free ones

	mu sync.Mutex // guards out
}

func newRunner(root string, jobs int, limit time.Duration, out io.Writer) (*runner, error) {
	sum := sha256.Sum256([]byte(root))
	dir, lock, err := lockFolder(hex.EncodeToString(sum[:6]))
	if err != nil {
		return nil, err
	}
	r := &runner{limit: limit, out: out, env: os.Environ(), lock: lock, trees: make(chan *tree, jobs)}
	// Copies stand elsewhere: what the tests look for beside the project is named.
	if os.Getenv("VALISE_VECTORS") == "" {
		r.env = append(r.env, "VALISE_VECTORS="+filepath.Join(root, "..", "shared", "vectors"))
	}
	files, err := listFiles(context.Background(), root)
	if err != nil {
		r.close()
		return nil, err
	}
	for i := range jobs {
		t := &tree{origin: root, dir: filepath.Join(dir, fmt.Sprintf("tree%d", i)), files: files}
		if err := errors.Join(os.MkdirAll(t.dir, 0o700), t.sync()); err != nil {
			r.close()
			return nil, err
		}
		r.trees <- t
	}
	return r, nil
}

func (r *runner) close() { r.lock.Close() }

func (r *runner) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format, args...)
}

// A verdict is what a run of tests came to.
type verdict struct {
	passed, failed, skipped []string // names of top-level tests
	built                   bool
	timedOut                bool
	output                  string
}

// goTest runs the tests of one package in one tree.
func (r *runner) goTest(ctx context.Context, t *tree, pkg, pattern string) (verdict, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout", r.limit.String(), "-run", pattern, pkg)
	cmd.Dir, cmd.Env = t.dir, r.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return verdict{}, err
	}
	if ctx.Err() != nil {
		return verdict{}, ctx.Err()
	}
	return parse(out), nil
}

func parse(out []byte) verdict {
	v := verdict{built: true}
	var text strings.Builder
	for line := range strings.Lines(string(out)) {
		var e struct{ Action, Test, Output, FailedBuild string }
		if json.Unmarshal([]byte(line), &e) != nil {
			text.WriteString(line)
			continue
		}
		text.WriteString(e.Output)
		if e.Action == "build-fail" || e.FailedBuild != "" {
			v.built = false
		}
		if strings.Contains(e.Output, "panic: test timed out after") {
			v.timedOut = true
		}
		if e.Test == "" || strings.Contains(e.Test, "/") {
			continue
		}
		switch e.Action {
		case "pass":
			v.passed = append(v.passed, e.Test)
		case "fail":
			v.failed = append(v.failed, e.Test)
		case "skip":
			v.skipped = append(v.skipped, e.Test)
		}
	}
	v.output = text.String()
	return v
}

var plain = regexp.MustCompile(`^\^(\w+)\$$`)

// baseline runs every named test on the untouched tree: plain names of one
// package together, anything else by itself. All must run and pass.
func (r *runner) baseline(ctx context.Context, mutants []mutant) error {
	type batch struct {
		pkg   string
		names []string // plain
		other string   // or one pattern
	}
	var batches []*batch
	for _, m := range mutants {
		match := plain.FindStringSubmatch(m.pattern)
		i := slices.IndexFunc(batches, func(b *batch) bool {
			return b.pkg == m.pkg && (match != nil && b.other == "" || match == nil && b.other == m.pattern)
		})
		if i < 0 {
			batches = append(batches, &batch{pkg: m.pkg})
			i = len(batches) - 1
		}
		if match == nil {
			batches[i].other = m.pattern
		} else if !slices.Contains(batches[i].names, match[1]) {
			batches[i].names = append(batches[i].names, match[1])
		}
	}
	var bad error
	t := <-r.trees
	defer func() { r.trees <- t }()
	for _, b := range batches {
		pattern := b.other
		if pattern == "" {
			pattern = "^(" + strings.Join(b.names, "|") + ")$"
		}
		v, err := r.goTest(ctx, t, b.pkg, pattern)
		if err != nil {
			return err
		}
		if err := v.green(b.names); err != nil {
			bad = errors.Join(bad, fmt.Errorf("unpatched, %s -run '%s': %w\n%s", b.pkg, pattern, err, v.output))
			continue
		}
		r.printf("green     %s: %s\n", b.pkg, strings.Join(v.passed, " "))
	}
	return bad
}

// green: the tests named (or at least one, if none is named) ran and passed.
func (v verdict) green(names []string) error {
	switch {
	case !v.built:
		return errors.New("does not build")
	case len(v.failed) > 0:
		return fmt.Errorf("fails: %s", strings.Join(v.failed, " "))
	case len(v.skipped) > 0:
		return fmt.Errorf("skips: %s", strings.Join(v.skipped, " "))
	case len(v.passed) == 0:
		return errors.New("no such test")
	}
	for _, name := range names {
		if !slices.Contains(v.passed, name) {
			return fmt.Errorf("no such test: %s", name)
		}
	}
	return nil
}

// run hunts every mutant and prints the counts.
func (r *runner) run(ctx context.Context, mutants []mutant) error {
	var wg sync.WaitGroup
	errs := make([]error, len(mutants))
	for i, m := range mutants {
		t := <-r.trees
		wg.Go(func() {
			defer func() { r.trees <- t }()
			start := time.Now()
			how, err := r.one(ctx, t, m)
			errs[i] = err
			took := time.Since(start).Seconds()
			if err != nil {
				r.printf("SURVIVED  %-36s %5.1fs  %v (removes %s)\n", m.name, took, err, m.removes)
				return
			}
			r.printf("killed    %-36s %5.1fs  %s (removes %s)\n", m.name, took, how, m.removes)
		})
	}
	wg.Wait()
	survived := 0
	for _, err := range errs {
		if err != nil {
			survived++
		}
	}
	r.printf("mutants: %d killed, %d survived\n", len(mutants)-survived, survived)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if survived > 0 {
		return errors.New("every mutant must be killed by the test it names")
	}
	return nil
}

// one applies a patch, runs the test that it names, and puts the tree back.
// Without an error the mutant was killed, and the text says by what.
func (r *runner) one(ctx context.Context, t *tree, m mutant) (how string, err error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	undo, err := t.apply(ctx, m.path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, undo()) }()
	v, err := r.goTest(ctx, t, m.pkg, m.pattern)
	switch {
	case err != nil:
		return "", err
	case !v.built:
		return "", fmt.Errorf("does not build, which proves nothing:\n%s", v.output)
	case len(v.failed) == 0 && len(v.skipped) > 0:
		return "", fmt.Errorf("%s skipped", strings.Join(v.skipped, " "))
	case len(v.failed) == 0:
		return "", fmt.Errorf("%s -run '%s' is still green", m.pkg, m.pattern)
	case v.timedOut:
		return strings.Join(v.failed, " ") + ", by running out of time", nil
	}
	return strings.Join(v.failed, " "), nil
}
