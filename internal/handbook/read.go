// SPDX-License-Identifier: Apache-2.0

package handbook

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A Block is a fenced block of a document.
type Block struct {
	Document string
	Section  int      // the line of the heading above, of the first or second level
	Line     int      // of its first line of text
	Language string   // "" if none is said
	Words    []string // what else the info string says
	NotRun   string   // the reason, if it says that it is not run
	Text     []string
}

// At says where the block is.
func (b *Block) At() string { return fmt.Sprintf("%s:%d", b.Document, b.Line) }

var (
	fence  = regexp.MustCompile("^(```+)\\s*(.*?)\\s*$")
	headed = regexp.MustCompile(`^##? `)
	notRun = regexp.MustCompile(`^<!-- not run: (.+) -->$`)
)

// Read reads the blocks of a document.
func Read(document string) ([]*Block, error) {
	data, err := os.ReadFile(document)
	if err != nil {
		return nil, err
	}
	return Parse(document, data)
}

// Parse is Read for a document in memory.
func Parse(document string, data []byte) ([]*Block, error) {
	var blocks []*Block
	var open *Block
	var closing, reason string
	section := 0
	for i, text := range strings.Split(string(data), "\n") {
		match := fence.FindStringSubmatch(text)
		switch {
		case open != nil && match != nil && match[1] == closing && match[2] == "":
			blocks, open = append(blocks, open), nil
		case open != nil:
			open.Text = append(open.Text, strings.TrimRight(text, " "))
		case match != nil:
			open = &Block{Document: document, Section: section, Line: i + 2, NotRun: reason}
			closing, reason = match[1], ""
			if words := strings.Fields(match[2]); len(words) > 0 {
				open.Language, open.Words = words[0], words[1:]
			}
		case headed.MatchString(text):
			section = i + 1
		case strings.HasPrefix(text, "<!--"):
			if reason != "" {
				return nil, fmt.Errorf("%s:%d: the reason above belongs to no block", document, i+1)
			}
			if m := notRun.FindStringSubmatch(text); m != nil {
				reason = m[1]
			}
		case strings.TrimSpace(text) != "" && reason != "":
			return nil, fmt.Errorf("%s:%d: the reason above belongs to no block", document, i+1)
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block does not end", open.At())
	}
	return blocks, nil
}

var (
	span  = regexp.MustCompile("`([^`\n]+)`")
	fixed = regexp.MustCompile("(?ms)^```.*?^```$")
)

// A Span is code within a line of text.
type Span struct {
	Line int
	Text string
}

// Spans lists the code that stands within a document's text.
func Spans(data []byte) (spans []Span) {
	for i, text := range strings.Split(string(fenced(data)), "\n") {
		for _, match := range span.FindAllStringSubmatch(text, -1) {
			spans = append(spans, Span{i + 1, match[1]})
		}
	}
	return spans
}

// fenced empties the blocks. They keep their lines, so that the numbers stay right.
func fenced(data []byte) []byte {
	return fixed.ReplaceAllFunc(data, func(block []byte) []byte {
		return bytes.Repeat([]byte("\n"), bytes.Count(block, []byte("\n")))
	})
}
