// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
}

// A result is what became of one test function, or of one of its vectors.
type result struct {
	outcome string // pass, fail, skip; empty while it runs
	output  []string
}

// A count collects events. It belongs to one goroutine.
type count struct {
	out     io.Writer
	results map[string]*result // by name of the test
	other   []string           // output of no test: the build's, or a panic's
}

func newCount(out io.Writer) *count {
	return &count{out: out, results: make(map[string]*result)}
}

// follow reads events to their end.
func (c *count) follow(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			c.add(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events of go test: %w", err)
		}
	}
}

func (c *count) add(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		c.other = append(c.other, string(line))
		return
	}
	if e.Test == "" {
		c.other = append(c.other, e.Output)
		return
	}
	r := c.results[e.Test]
	if r == nil {
		r = new(result)
		c.results[e.Test] = r
	}
	switch e.Action {
	case "output":
		r.output = append(r.output, e.Output)
	case "pass", "fail", "skip":
		r.outcome = e.Action
	}
}

// numbers are the counts of one file, or of all.
type numbers struct{ passed, failed, skipped int }

func (n *numbers) add(outcome string) {
	switch outcome {
	case "pass":
		n.passed++
	case "skip":
		n.skipped++
	default: // a test that did not end has failed, too
		n.failed++
	}
}

// summary prints what failed, a line for each test function, and the last
// line. unhappy says that go test itself ended with an error.
func (c *count) summary(unhappy bool) bool {
	var all numbers
	files := make(map[string]*numbers)
	suites := make(map[int]bool)
	for _, name := range slices.Sorted(maps.Keys(c.results)) {
		file, vector, isVector := strings.Cut(name, "/")
		if !isVector {
			continue
		}
		r := c.results[name]
		if files[file] == nil {
			files[file] = new(numbers)
		}
		files[file].add(r.outcome)
		all.add(r.outcome)
		if n, ok := suiteOf(vector); ok && r.outcome != "skip" {
			suites[n] = true
		}
		c.show(r)
	}
	// A test function that failed, or did not end, although none of its
	// vectors did: its file cannot be read.
	for name, r := range c.results {
		if strings.Contains(name, "/") || r.outcome == "pass" || r.outcome == "skip" {
			continue
		}
		if files[name] == nil || files[name].failed == 0 {
			all.failed++
			c.show(r)
		}
	}
	if unhappy && all.failed == 0 {
		all.failed++
		fmt.Fprint(c.out, strings.Join(c.other, ""))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		n := files[name]
		fmt.Fprintf(c.out, "%-40s %5d passed %4d failed %4d skipped\n", strings.TrimPrefix(name, "TestVectors"), n.passed, n.failed, n.skipped)
	}
	if all.passed+all.failed == 0 {
		fmt.Fprintln(c.out, "no vector ran: is the folder empty?")
	}
	fmt.Fprintf(c.out, "mls vectors: %d passed, %d failed, %d skipped (suites %s)\n", all.passed, all.failed, all.skipped, list(suites))
	return all.failed == 0 && all.passed > 0
}

func (c *count) show(r *result) {
	if r.outcome == "pass" || r.outcome == "skip" {
		return
	}
	for _, line := range r.output {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(c.out, line)
		}
	}
}

// suiteOf reads the suite from a vector's name, "12-suite-7".
func suiteOf(vector string) (int, bool) {
	_, number, ok := strings.Cut(vector, "-suite-")
	n, err := strconv.Atoi(number)
	return n, ok && err == nil
}

func list(suites map[int]bool) string {
	if len(suites) == 0 {
		return "none"
	}
	var names []string
	for _, n := range slices.Sorted(maps.Keys(suites)) {
		names = append(names, strconv.Itoa(n))
	}
	return strings.Join(names, ", ")
}
