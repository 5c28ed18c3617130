// SPDX-License-Identifier: Apache-2.0

package handbook

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const ellipsis = "…"

// Values are what the words in capitals stand for.
type Values map[string]string

// A Table lists the words in capitals that are values, and whether each stands for the
// same everywhere, and not only within a section. Nothing else is a value.
type Table map[string]bool

var (
	capitals = regexp.MustCompile(`[A-Z]+`)
	row      = regexp.MustCompile("(?m)^\\| `([A-Z]+)` \\|.*\\| (everywhere|a section) \\|$")
)

// ReadTable reads the words from the table in which docs/README.md explains them.
func ReadTable(data []byte) (Table, error) {
	t := make(Table)
	for _, match := range row.FindAllStringSubmatch(string(data), -1) {
		t[match[1]] = match[2] == "everywhere"
	}
	if len(t) == 0 {
		return nil, fmt.Errorf("there is no table of words that stand for values")
	}
	return t, nil
}

// words finds the table's words in a text, whole words only.
func (t Table) words(text string, each func(before, word string), rest func(string)) {
	last := 0
	for _, at := range capitals.FindAllStringIndex(text, -1) {
		word := text[at[0]:at[1]]
		if _, ok := t[word]; !ok || at[0] > 0 && wordByte(text[at[0]-1]) || at[1] < len(text) && wordByte(text[at[1]]) {
			continue
		}
		each(text[last:at[0]], word)
		last = at[1]
	}
	rest(text[last:])
}

func wordByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// Forget leaves the values that are the same everywhere.
func (t Table) Forget(values Values) {
	maps.DeleteFunc(values, func(word, _ string) bool { return !t[word] })
}

// Fill puts values into a command or a file.
func (t Table) Fill(text string, values Values) (string, error) {
	var b strings.Builder
	var missing []string
	t.words(text, func(before, word string) {
		value, ok := values[word]
		if !ok {
			missing = append(missing, word)
		}
		b.WriteString(before + value)
	}, func(rest string) { b.WriteString(rest) })
	if len(missing) > 0 {
		return "", fmt.Errorf("nothing has shown before what %s is", strings.Join(missing, ", "))
	}
	return b.String(), nil
}

// Match compares what was printed with what a document says. Values that are seen for
// the first time are added. Where it differs, the error says at which line.
func (t Table) Match(want, got []string, values Values) error {
	found := maps.Clone(values)
	if at := t.match(want, got, found, 0); at >= 0 {
		return &Difference{Want: want, Got: got, Line: at}
	}
	maps.Copy(values, found)
	return nil
}

// A Difference is output that is not what the document says.
type Difference struct {
	Want, Got []string
	Line      int // of Want: the farthest that nothing printed agrees with
}

func (d *Difference) Error() string {
	what := "something more is printed than the document says"
	if d.Line < len(d.Want) {
		what = fmt.Sprintf("nothing printed agrees with %q", d.Want[d.Line])
	}
	return fmt.Sprintf("%s\nprinted:\n    %s", what, strings.Join(d.Got, "\n    "))
}

// match returns -1, or the farthest line of want that could not be matched.
func (t Table) match(want, got []string, values Values, line int) int {
	if len(want) == 0 {
		if len(got) == 0 {
			return -1
		}
		return line
	}
	if want[0] == ellipsis {
		farthest := line
		for skip := 0; skip <= len(got); skip++ {
			try := maps.Clone(values)
			at := t.match(want[1:], got[skip:], try, line+1)
			if at < 0 {
				maps.Copy(values, try)
				return -1
			}
			farthest = max(farthest, at)
		}
		return farthest
	}
	if len(got) == 0 || !t.line(want[0], got[0], values) {
		return line
	}
	return t.match(want[1:], got[1:], values, line+1)
}

// line compares one line.
func (t Table) line(want, got string, values Values) bool {
	pattern, order := "^", []string{}
	quote := func(text string) {
		pattern += strings.ReplaceAll(regexp.QuoteMeta(text), ellipsis, ".*")
	}
	t.words(want, func(before, word string) {
		quote(before)
		if value, known := values[word]; known {
			pattern += regexp.QuoteMeta(value)
			return
		}
		if slices.Contains(order, word) { // twice in one line: compared below
			order = append(order, word)
			pattern += `(\S+)`
			return
		}
		order = append(order, word)
		pattern += `([^\s,;]+)`
	}, quote)
	match := regexp.MustCompile(pattern + "$").FindStringSubmatch(got)
	if match == nil {
		return false
	}
	found := make(Values)
	for i, word := range order {
		if before, twice := found[word]; twice && before != match[i+1] {
			return false
		}
		found[word] = match[i+1]
	}
	maps.Copy(values, found)
	return true
}
