// SPDX-License-Identifier: Apache-2.0

// Benches runs every benchmark of the project, one after another, and keeps
// what they said in a file under bench/results/:
//
//	go run ./internal/benches [PACKAGE ...]
//
// A benchmark is a Benchmark function anywhere in the module, or a program in
// a folder below bench/. Figures that they print (see internal/figure) are
// repeated at the end; a Benchmark function that prints none gets figures made
// from its result line. A figure below its target says "short", which is not
// an error; a benchmark that fails, and a target that nothing measured, are.
//
// Never compare results of different machines, or of one that was busy: the
// head of each file says what it was measured on.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"valise/internal/figure"
)

func main() {
	dir := flag.String("dir", "bench/results", "`folder` for the file with the results")
	benchtime := flag.String("benchtime", "1s", "passed to go test")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *dir, *benchtime, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benches:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, benchtime string, packages []string) error {
	targets, err := figure.Load()
	if err != nil {
		return err
	}
	list, err := find(ctx, packages)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	commit := strings.TrimSpace(command("git", "describe", "--always", "--dirty", "--abbrev=10"))
	if commit == "" {
		commit = "unversioned"
	}
	now := time.Now().UTC()
	path := filepath.Join(dir, now.Format("2006-01-02T1504")+"-"+commit+".txt")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	out := io.MultiWriter(os.Stdout, file)
	fmt.Fprintf(out, "# measured %s at %s\n%s", now.Format(time.RFC3339), commit, machine())

	var figures figureList
	var failed error
	for _, b := range list {
		failed = errors.Join(failed, b.run(ctx, out, benchtime, &figures))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	fmt.Fprintf(out, "\n# figures\n")
	if err := figures.print(out, targets); err != nil {
		failed = errors.Join(failed, err)
	}
	if len(packages) == 0 {
		failed = errors.Join(failed, figures.missing(targets))
	}
	fmt.Fprintln(os.Stdout, "kept in", path)
	return errors.Join(failed, file.Close())
}

// A bench is a package: a program to run, or Benchmark functions to test.
type bench struct {
	pkg     string
	program bool
}

// find lists the packages that have something to measure.
func find(ctx context.Context, packages []string) ([]bench, error) {
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	out, err := output(ctx, "go", append([]string{"test", "-run", "^$", "-list", "^Benchmark"}, packages...)...)
	if err != nil {
		return nil, fmt.Errorf("looking for benchmarks: %w", err)
	}
	var list []bench
	for _, pkg := range listed(string(out)) {
		list = append(list, bench{pkg: pkg})
	}
	out, err = output(ctx, "go", append([]string{"list", "-f", "{{.Name}} {{.ImportPath}}"}, packages...)...)
	if err != nil {
		return nil, fmt.Errorf("looking for programs: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name, pkg, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, rest, _ := strings.Cut(pkg, "/"); name == "main" && strings.HasPrefix(rest, "bench/") {
			list = append(list, bench{pkg: pkg, program: true})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no benchmark found")
	}
	return list, nil
}

// listed reads what `go test -list` prints: names, then "ok PACKAGE TIME".
func listed(out string) (packages []string) {
	names := 0
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "Benchmark"):
			names++
		case len(fields) > 1 && fields[0] == "ok":
			if names > 0 {
				packages = append(packages, fields[1])
			}
			names = 0
		}
	}
	return packages
}

// run measures one package. Its output is shown as it comes, and read for figures.
func (b bench) run(ctx context.Context, out io.Writer, benchtime string, figures *figureList) error {
	args := []string{"run", b.pkg}
	if !b.program {
		args = []string{"test", "-run", "^$", "-bench", ".", "-benchtime", benchtime, "-timeout", "40m", b.pkg}
	}
	fmt.Fprintf(out, "\n# go %s\n", strings.Join(args, " "))
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stdout = io.MultiWriter(out, &said)
	cmd.Stderr = cmd.Stdout
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", b.pkg, err)
	}
	if !figures.read(b.pkg, said.String()) {
		return fmt.Errorf("%s: printed no figure", b.pkg)
	}
	return nil
}

// machine describes what the figures depend on, and nothing that names the host.
func machine() string {
	cpu := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	load, _, _ := strings.Cut(strings.TrimSpace(read("/proc/loadavg")), " ")
	return fmt.Sprintf("# %s, %d cores, Linux %s, %s, load %s before\n",
		cpu, runtime.NumCPU(), strings.TrimSpace(read("/proc/sys/kernel/osrelease")), runtime.Version(), load)
}

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return string(data)
}

// command returns what a command prints, or nothing if it fails.
func command(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s%s", err, out, exit.Stderr)
	}
	return out, err
}
