// SPDX-License-Identifier: Apache-2.0

package handbook

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Programs are the commands that are installed.
var Programs = []string{"valise", "valise-enrolld", "valise-gatewayd"}

var ours = regexp.MustCompile(`^(?:\$ |# )?(valise(?:-enrolld|-gatewayd)?) \S`)

// Stray complains of commands that stand where nothing runs them: in a block that is
// no transcript.
func Stray(blocks []*Block) (complaints []string) {
	for _, b := range blocks {
		if b.Language == "console" {
			if len(b.Words) > 1 {
				complaints = append(complaints, fmt.Sprintf("%s: %q is not understood", b.At(), strings.Join(b.Words, " ")))
			}
			continue
		}
		for i, text := range b.Text {
			if ours.MatchString(text) {
				complaints = append(complaints, fmt.Sprintf("%s:%d: a command in a block that is no transcript: %s", b.Document, b.Line+i, text))
			}
		}
	}
	return complaints
}

var cut = regexp.MustCompile(`\s*(…|[|<>;&]|\[).*$`)

// Mentioned lists the commands of ours that stand within a document's text, as words;
// what follows an ellipsis or a redirection is left out.
func Mentioned(data []byte) (commands [][]string, lines []int) {
	for _, s := range Spans(data) {
		text := s.Text
		for _, p := range []string{"$ ", "# "} {
			text = strings.TrimPrefix(text, p)
		}
		words := strings.Fields(cut.ReplaceAllString(text, ""))
		if len(words) > 1 && ours.MatchString(strings.Join(words, " ")) {
			commands, lines = append(commands, words), append(lines, s.Line)
		}
	}
	return commands, lines
}

// Ours gives the program and its words, if a command is one of our programs, alone on
// its line.
func Ours(command string) (words []string, ok bool) {
	words = strings.Fields(cut.ReplaceAllString(command, ""))
	if len(words) == 0 || !slices.Contains(Programs, words[0]) {
		return nil, false
	}
	return words, true
}

// Broken lists the lines in which code begins that ends in another one: nobody would
// find a command there.
func Broken(data []byte) (lines []int) {
	for i, text := range strings.Split(string(fenced(data)), "\n") {
		if strings.Count(text, "`")%2 != 0 {
			lines = append(lines, i+1)
		}
	}
	return lines
}
