// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// A skipRule allows the skips whose message begins with prefix, as long as
// its condition holds on this machine.
type skipRule struct {
	prefix, condition, reason string
	holds                     bool
}

// conditions tells which of the conditions that a rule may name hold here.
func conditions() map[string]bool {
	dir := os.Getenv("VALISE_VECTORS")
	if dir == "" {
		dir = "../shared/vectors"
	}
	_, err := os.Stat(dir)
	required := strings.Contains(os.Getenv("VALISE_REQUIRE"), "vectors")
	return map[string]bool{
		"vectors-missing": err != nil && !required,
		"root":            os.Geteuid() == 0,
		"not-root":        os.Geteuid() != 0,
	}
}

// parseSkips reads lines PREFIX | CONDITION | REASON.
func parseSkips(r io.Reader, holds map[string]bool) ([]skipRule, error) {
	var rules []skipRule
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, "|", 3)
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if len(fields) != 3 || fields[0] == "" || fields[2] == "" {
			return nil, fmt.Errorf("skips, line %d: not PREFIX | CONDITION | REASON", n)
		}
		now, known := holds[fields[1]]
		if !known {
			return nil, fmt.Errorf("skips, line %d: unknown condition %q", n, fields[1])
		}
		rules = append(rules, skipRule{fields[0], fields[1], fields[2], now})
	}
	return rules, lines.Err()
}

var atLine = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// skipReason is what the test gave to t.Skip: the last message that it logged.
func skipReason(output []string) string {
	reason := ""
	for _, line := range output {
		if at := atLine.FindString(line); at != "" {
			reason = strings.TrimSpace(line[len(at):])
		}
	}
	if reason == "" {
		return "no reason given"
	}
	return reason
}

// judgeSkips separates the skips that no rule allows, and sums up the others
// in one note a rule.
func judgeSkips(skips []skip, rules []skipRule) (unlisted []skip, notes []string) {
	counts := make([]int, len(rules))
next:
	for _, s := range skips {
		for i, r := range rules {
			if r.holds && strings.HasPrefix(s.reason, r.prefix) {
				counts[i]++
				continue next
			}
		}
		unlisted = append(unlisted, s)
	}
	for i, n := range counts {
		if n > 0 {
			r := rules[i]
			notes = append(notes, fmt.Sprintf("skipped with leave: %d × %q (%s): %s", n, r.prefix, r.condition, r.reason))
		}
	}
	return unlisted, notes
}
