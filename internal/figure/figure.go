// SPDX-License-Identifier: Apache-2.0

// Package figure prints what a benchmark measured, one line a figure:
//
//	figure NAME VALUE UNIT
//	figure NAME VALUE UNIT target >=N ok|short
//
// The second form is printed for a NAME that has a line in bench/targets.txt,
// where targets stand exactly as they were agreed on. A benchmark calls
//
//	figure.Print(os.Stdout, "hsm_pkcs11_sign_8_ratio", ratio, "ratio")
//
// Never print such a line by hand and never round a value before Print: the
// comparison uses the value as it was measured.
package figure

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A Target is what a figure has to reach.
type Target struct {
	Unit string
	Op   string // ">=" or "<="
	// Bound is the number, Text the way in which the file writes it.
	Bound float64
	Text  string
}

// Met says whether the value reaches the target. NaN reaches none.
func (t Target) Met(value float64) bool {
	if t.Op == "<=" {
		return value <= t.Bound
	}
	return value >= t.Bound
}

// Targets are keyed by the name of the figure.
type Targets map[string]Target

var word = regexp.MustCompile(`^[a-z0-9][a-z0-9_]*$`)

// ParseTargets reads lines "NAME UNIT >=N" or "NAME UNIT <=N". Empty lines and
// lines that start with # are comments.
func ParseTargets(r io.Reader) (Targets, error) {
	targets := make(Targets)
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, target, err := parseTarget(line)
		if err != nil {
			return nil, fmt.Errorf("figure: targets, line %d: %w", n, err)
		}
		if _, twice := targets[name]; twice {
			return nil, fmt.Errorf("figure: targets, line %d: %s has a target already", n, name)
		}
		targets[name] = target
	}
	return targets, lines.Err()
}

func parseTarget(line string) (string, Target, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 || !word.MatchString(fields[0]) {
		return "", Target{}, fmt.Errorf("%q is not NAME UNIT >=N", line)
	}
	t := Target{Unit: fields[1], Text: fields[2]}
	for _, op := range []string{">=", "<="} {
		if number, ok := strings.CutPrefix(fields[2], op); ok {
			bound, err := strconv.ParseFloat(number, 64)
			if err != nil || math.IsNaN(bound) || math.IsInf(bound, 0) {
				return "", Target{}, fmt.Errorf("%q is not a number", number)
			}
			t.Op, t.Bound = op, bound
			return fields[0], t, nil
		}
	}
	return "", Target{}, fmt.Errorf("%q starts neither with >= nor with <=", fields[2])
}

// TargetsFile is where targets stand, relative to the module's root.
const TargetsFile = "bench/targets.txt"

// ErrNoTargets: neither VALISE_TARGETS nor a module above the current folder
// leads to the file.
var ErrNoTargets = errors.New("figure: no " + TargetsFile + " above this folder: run inside the module or set VALISE_TARGETS")

// Load reads the file that VALISE_TARGETS names, or else bench/targets.txt of
// the module that the current folder belongs to.
func Load() (Targets, error) {
	path := os.Getenv("VALISE_TARGETS")
	if path == "" {
		root, err := moduleRoot()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(root, TargetsFile)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoTargets
	}
	if err != nil {
		return nil, fmt.Errorf("figure: %w", err)
	}
	defer f.Close()
	return ParseTargets(f)
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("figure: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", ErrNoTargets
		}
		dir = up
	}
}

// Print writes the line of one figure, against its target where it has one.
// The line is written even where the targets cannot be read; the error then
// says that nothing was compared.
func Print(w io.Writer, name string, value float64, unit string) error {
	targets, err := Load()
	return errors.Join(err, targets.Print(w, name, value, unit))
}

// Print writes the line of one figure against these targets.
func (ts Targets) Print(w io.Writer, name string, value float64, unit string) error {
	if !word.MatchString(name) || strings.ContainsAny(unit, " \t\n") || unit == "" {
		return fmt.Errorf("figure: %q in %q cannot be a figure: names are of a-z, 0-9 and _, units are one word", name, unit)
	}
	line := fmt.Sprintf("figure %s %s %s", name, format(value), unit)
	target, ok := ts[name]
	if ok {
		verdict := "short"
		if target.Unit == unit && target.Met(value) {
			verdict = "ok"
		}
		line += fmt.Sprintf(" target %s %s", target.Text, verdict)
	}
	if _, err := fmt.Fprintln(w, line); err != nil {
		return fmt.Errorf("figure: %w", err)
	}
	if ok && target.Unit != unit {
		return fmt.Errorf("figure: %s is measured in %s, but its target is in %s", name, unit, target.Unit)
	}
	return nil
}

// format keeps six digits, and no exponent between a millionth and a million millions.
func format(value float64) string {
	size := math.Abs(value)
	if size != 0 && (size < 1e-6 || size >= 1e12) {
		return strconv.FormatFloat(value, 'g', 6, 64)
	}
	digits := 5
	if size >= 1 {
		digits = max(0, 5-int(math.Log10(size)))
	} else if size > 0 {
		digits = 5 - int(math.Floor(math.Log10(size)))
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
