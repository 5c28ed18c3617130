// SPDX-License-Identifier: Apache-2.0

// Package manual turns the package comment of a command, which is its manual, into a
// manual page for man(7), so that the two never say different things.
//
//	page, err := manual.Page("cmd/valise-gatewayd/main.go", manual.Header{Name: "valise-gatewayd", Section: 8, …})
//
// It knows what go/doc/comment knows: paragraphs, code, headings and lists. Never edit
// a page that it made: edit the comment.
package manual

import (
	"errors"
	"fmt"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"strings"
	"time"
)

// A Header is what stands around the text.
type Header struct {
	Name    string
	Section int
	Brief   string // one line, behind the name
	Usage   string // the synopsis, without the name
	Source  string // "Valise 1.2.3"
	Date    time.Time
}

// Page reads the package comment of a Go file and returns the page.
func Page(file string, h Header) ([]byte, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		return nil, err
	}
	if parsed.Doc == nil {
		return nil, errors.New("manual: " + file + " has no package comment")
	}
	doc := new(comment.Parser).Parse(parsed.Doc.Text())
	var w writer
	w.line(fmt.Sprintf(`.TH %s %d %s "%s" "Valise"`, strings.ToUpper(escape(h.Name)), h.Section, h.Date.UTC().Format(time.DateOnly), h.Source))
	w.line(".SH NAME")
	w.line(escape(h.Name) + ` \- ` + escape(h.Brief))
	w.line(".SH SYNOPSIS")
	w.line(".B " + escape(h.Name))
	w.line(escape(h.Usage))
	w.line(".SH DESCRIPTION")
	for _, block := range doc.Content {
		w.block(block)
	}
	return []byte(w.String()), nil
}

type writer struct{ strings.Builder }

func (w *writer) line(text string) { w.WriteString(text + "\n") }

func (w *writer) block(block comment.Block) {
	switch b := block.(type) {
	case *comment.Heading:
		w.line(".SH " + strings.ToUpper(inline(b.Text)))
	case *comment.Paragraph:
		w.line(".PP")
		w.line(guarded(inline(b.Text)))
	case *comment.Code:
		w.line(".PP\n.RS 4\n.nf")
		for line := range strings.Lines(strings.TrimSuffix(b.Text, "\n")) {
			w.line(guarded(escape(strings.TrimSuffix(strings.ReplaceAll(line, "\t", "    "), "\n"))))
		}
		w.line(".fi\n.RE")
	case *comment.List:
		for _, item := range b.Items {
			w.line(`.IP \(bu 4`)
			for _, inner := range item.Content {
				if p, ok := inner.(*comment.Paragraph); ok {
					w.line(guarded(inline(p.Text)))
				}
			}
		}
	}
}

// inline joins what a paragraph is made of; links become their text.
func inline(all []comment.Text) string {
	var out strings.Builder
	for _, text := range all {
		switch t := text.(type) {
		case comment.Plain:
			out.WriteString(escape(strings.ReplaceAll(string(t), "\n", " ")))
		case comment.Italic:
			out.WriteString(escape(string(t)))
		case *comment.Link:
			out.WriteString(inline(t.Text))
		case *comment.DocLink:
			out.WriteString(inline(t.Text))
		}
	}
	return out.String()
}

// escape writes text so that groff prints exactly it: no dash becomes a hyphen.
func escape(text string) string {
	var out strings.Builder
	for _, r := range text {
		switch {
		case r == '\\':
			out.WriteString(`\e`)
		case r == '-':
			out.WriteString(`\-`)
		case r > 126:
			fmt.Fprintf(&out, `\[u%04X]`, r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// guarded keeps a line that begins like a request from being one.
func guarded(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}
