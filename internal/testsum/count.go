// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// An event is one line of `go test -json`; see `go doc test2json` and, for
// the events of the build, `go help buildjson`.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
	ImportPath  string // of build-output and build-fail
}

// A test is a name that was run, in one package.
type test struct {
	outcome string // pass, fail, skip; empty while it runs
	output  []string
	parent  bool // has subtests that count
	hurt    bool // has a subtest whose end explains this test's own
}

// A pkg collects the events of one package until it ends.
type pkg struct {
	tests  map[string]*test
	order  []string
	output []string // not of any test
	ended  bool
}

// A skip is kept for the end, where each has to be allowed.
type skip struct{ pkg, test, reason string }

// A counter turns events into lines and numbers. It belongs to one goroutine.
type counter struct {
	out      io.Writer
	packages map[string]*pkg
	builds   map[string][]string // output of the build by import path

	passed, failed int
	skips          []skip
	failures       []string // names, for the list at the end
}

func newCounter(out io.Writer) *counter {
	return &counter{out: out, packages: make(map[string]*pkg), builds: make(map[string][]string)}
}

// follow reads events until the stream ends. A line that is no event is shown
// as it is: the go command prints a few of its own complaints that way.
func (c *counter) follow(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(c.out, "%s\n", strings.TrimRight(string(line), "\n"))
			} else {
				c.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events of go test: %w", err)
		}
	}
}

func (c *counter) add(e event) {
	switch {
	case e.Action == "build-output":
		c.builds[e.ImportPath] = append(c.builds[e.ImportPath], e.Output)
		return
	case e.Package == "":
		return
	}
	p := c.packages[e.Package]
	if p == nil {
		p = &pkg{tests: make(map[string]*test)}
		c.packages[e.Package] = p
	}
	if e.Test != "" {
		p.add(e)
		return
	}
	switch e.Action {
	case "output":
		p.output = append(p.output, e.Output)
	case "pass", "fail", "skip":
		c.end(e, p)
	}
}

func (p *pkg) add(e event) {
	t := p.tests[e.Test]
	if t == nil {
		t = &test{}
		p.tests[e.Test] = t
		p.order = append(p.order, e.Test)
	}
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.outcome = e.Action
	}
}

// end counts a package's tests and prints its line.
func (c *counter) end(e event, p *pkg) {
	p.ended = true
	p.relate()
	var passed, failed, skipped int
	for _, name := range p.order {
		t := p.tests[name]
		if isSeed(name) || t.parent && (t.outcome == "pass" || t.hurt) {
			continue
		}
		switch t.outcome {
		case "pass":
			passed++
		case "skip":
			skipped++
			c.skips = append(c.skips, skip{e.Package, name, skipReason(t.output)})
		case "fail":
			failed++
			c.failures = append(c.failures, e.Package+" "+name)
		default:
			failed++
			c.failures = append(c.failures, e.Package+" "+name+" (did not end)")
		}
	}
	if e.Action == "fail" && failed == 0 {
		failed++
		why := "(failed outside its tests)"
		if e.FailedBuild != "" {
			why = "(does not build)"
		}
		c.failures = append(c.failures, e.Package+" "+why)
	}
	c.passed, c.failed = c.passed+passed, c.failed+failed
	c.line(e, passed, failed, skipped)
	if failed > 0 {
		c.show(e, p)
	}
}

// relate marks the tests that have subtests, and those whose subtests explain
// their own failure or skip.
func (p *pkg) relate() {
	for _, name := range p.order {
		if isSeed(name) {
			continue
		}
		outcome := p.tests[name].outcome
		for up, ok := parentOf(name); ok; up, ok = parentOf(up) {
			if t := p.tests[up]; t != nil {
				t.parent = true
				t.hurt = t.hurt || outcome == "fail" || outcome == "" || outcome == t.outcome && outcome != "pass"
			}
		}
	}
}

func parentOf(name string) (string, bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", false
	}
	return name[:i], true
}

// isSeed: a fuzz target's seeds and corpus files run as its subtests.
func isSeed(name string) bool {
	return strings.HasPrefix(name, "Fuzz") && strings.Contains(name, "/")
}

func (c *counter) line(e event, passed, failed, skipped int) {
	if passed+failed+skipped == 0 {
		fmt.Fprintf(c.out, "-     %-40s no tests\n", e.Package)
		return
	}
	word := "ok  "
	if failed > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(c.out, "%s  %-40s %7.1fs  %4d passed", word, e.Package, e.Elapsed, passed)
	if failed > 0 {
		fmt.Fprintf(c.out, ", %d failed", failed)
	}
	if skipped > 0 {
		fmt.Fprintf(c.out, ", %d skipped", skipped)
	}
	fmt.Fprintln(c.out)
}

// show prints everything that a failed package said: the build's errors, the
// output of each test that did not pass, and what belongs to no test.
func (c *counter) show(e event, p *pkg) {
	write := func(lines []string) {
		for line := range strings.Lines(strings.Join(lines, "")) {
			fmt.Fprintf(c.out, "      %s\n", strings.TrimRight(line, "\n"))
		}
	}
	if e.FailedBuild != "" {
		write(c.builds[e.FailedBuild])
	}
	for _, name := range p.order {
		if t := p.tests[name]; t.outcome != "pass" && t.outcome != "skip" {
			write(t.output)
		}
	}
	write(p.output)
}

// finish counts what the stream left open, and a failure of go test itself
// that no event explains.
func (c *counter) finish(unexplained bool) {
	before := c.failed
	var open []string
	for path, p := range c.packages {
		if !p.ended {
			open = append(open, path)
		}
	}
	slices.Sort(open)
	for _, path := range open {
		c.end(event{Action: "fail", Package: path}, c.packages[path])
	}
	if unexplained && c.failed == before {
		c.failed++
		c.failures = append(c.failures, "go test itself (see above)")
	}
}

// summary prints the end of the run, and is true when it may count as green.
func (c *counter) summary(rules []skipRule) bool {
	unlisted, notes := judgeSkips(c.skips, rules)
	for _, name := range c.failures {
		fmt.Fprintln(c.out, "failed:", name)
	}
	for _, s := range unlisted {
		fmt.Fprintf(c.out, "skipped without leave: %s %s: %s\n", s.pkg, s.test, s.reason)
	}
	for _, note := range notes {
		fmt.Fprintln(c.out, note)
	}
	ran := c.passed + c.failed + len(c.skips)
	if ran == 0 {
		fmt.Fprintln(c.out, "no test ran")
	}
	fmt.Fprintf(c.out, "tests: %d passed, %d failed, %d skipped\n", c.passed, c.failed, len(c.skips))
	return c.failed == 0 && len(unlisted) == 0 && ran > 0
}
