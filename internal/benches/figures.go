// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"valise/internal/figure"
)

// A measured figure, either as its benchmark printed it (line) or made from a
// result line of go test.
type measured struct {
	name  string
	line  string
	value float64
	unit  string
}

// A figureList keeps figures in the order in which they first came. A
// benchmark function may run several times until it is long enough: the last
// figure of a name counts.
type figureList []measured

func (l *figureList) add(m measured) {
	if i := slices.IndexFunc(*l, func(have measured) bool { return have.name == m.name }); i >= 0 {
		(*l)[i] = m
		return
	}
	*l = append(*l, m)
}

var (
	// A printed figure may follow the name of its benchmark on the same line.
	printed = regexp.MustCompile(`(?:^|\s)(figure ([a-z0-9][a-z0-9_]*) (?:[-+.0-9][-+.0-9e]*|NaN) \S+(?: target [<>]=\S+ (?:ok|short))?)\s*$`)
	result  = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+((?:\s+\S+ \S+)+)\s*$`)
	metric  = regexp.MustCompile(`(\S+) (\S+)`)
)

// read collects the figures of one package's output, and is false if there are none.
func (l *figureList) read(pkg, out string) bool {
	found := false
	for line := range strings.Lines(out) {
		if m := printed.FindStringSubmatch(line); m != nil {
			l.add(measured{name: m[2], line: m[1]})
			found = true
			continue
		}
		m := result.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		_, dir, _ := strings.Cut(pkg, "/")
		base := snake(dir + "_" + m[1])
		for i, pair := range metric.FindAllStringSubmatch(m[2], -1) {
			value, err := strconv.ParseFloat(pair[1], 64)
			if err != nil {
				continue
			}
			name := base
			if i > 0 {
				name += "_" + snake(pair[2])
			}
			l.add(measured{name: name, value: value, unit: pair[2]})
			found = true
		}
	}
	return found
}

var (
	hump    = regexp.MustCompile(`([a-z])([A-Z])`)
	nonWord = regexp.MustCompile(`[^a-z0-9]+`)
)

// snake makes a figure's name of a path or of a benchmark's name.
func snake(text string) string {
	text = strings.ToLower(hump.ReplaceAllString(text, "${1}_$2"))
	return strings.Trim(nonWord.ReplaceAllString(text, "_"), "_")
}

// print repeats every figure on a line of its own.
func (l figureList) print(out io.Writer, targets figure.Targets) (failed error) {
	for _, m := range l {
		if m.line != "" {
			if _, err := fmt.Fprintln(out, m.line); err != nil {
				return err
			}
			continue
		}
		failed = errors.Join(failed, targets.Print(out, m.name, m.value, m.unit))
	}
	return failed
}

// missing names the targets that nothing measured.
func (l figureList) missing(targets figure.Targets) (failed error) {
	for name := range targets {
		if !slices.ContainsFunc(l, func(m measured) bool { return m.name == name }) {
			failed = errors.Join(failed, fmt.Errorf("%s has a target, and no benchmark printed it", name))
		}
	}
	return failed
}
