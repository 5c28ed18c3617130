// SPDX-License-Identifier: Apache-2.0

// Package xmltree reads a small XML file as a tree that knows its lines, and
// refuses everything in XML that two readers could understand differently:
// document type declarations and with them entities, processing instructions,
// attributes given twice, prefixes without a namespace, other encodings than
// UTF-8, text after the root. Labels and policies are read with it.
//
// First call: [Parse]. The tree is then walked with [Node.Attr] and
// [Node.Only]; whoever walks it must refuse what it does not know, because
// nothing here does. Never read a label with encoding/xml's Unmarshal: it
// skips what it does not know.
package xmltree

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// An Error says in which line a file is not what it should be.
type Error struct {
	Line int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Namespaces of attributes that carry no content of their own.
const (
	xmlSpace = "http://www.w3.org/XML/1998/namespace"
	xsiSpace = "http://www.w3.org/2001/XMLSchema-instance"
)

// A Node is one element. Text is all text directly inside it.
type Node struct {
	Space, Name string
	Attrs       []xml.Attr // without declarations of namespaces
	Text        string
	Children    []*Node
	Line        int

	text []byte // grows until the element ends
	seen uint64 // attributes asked for, one bit each
}

// Parse reads one document.
func Parse(data []byte) (*Node, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	p := &parser{dec: xml.NewDecoder(bytes.NewReader(data))}
	p.dec.Strict = true
	for {
		line, _ := p.dec.InputPos()
		token, err := p.dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.take(token, line)
		}
		if err != nil {
			line, _ = p.dec.InputPos()
			return nil, &Error{line, err}
		}
	}
	if p.root == nil || len(p.open) > 0 {
		line, _ := p.dec.InputPos()
		return nil, &Error{line, errors.New("the file ends before its root element does")}
	}
	return p.root, nil
}

type parser struct {
	dec   *xml.Decoder
	root  *Node
	open  []*Node
	raw   []string // names of the open elements as written
	names []map[string]string
	count int
}

func (p *parser) take(token xml.Token, line int) error {
	switch t := token.(type) {
	case xml.StartElement:
		return p.start(t, line)
	case xml.EndElement:
		if len(p.open) == 0 || p.raw[len(p.raw)-1] != written(t.Name) {
			return fmt.Errorf("</%s> closes nothing", written(t.Name))
		}
		top := p.open[len(p.open)-1]
		top.Text, top.text = string(top.text), nil
		p.open, p.raw, p.names = p.open[:len(p.open)-1], p.raw[:len(p.raw)-1], p.names[:len(p.names)-1]
	case xml.CharData:
		if len(p.open) > 0 {
			top := p.open[len(p.open)-1]
			if len(top.text)+len(t) > MaxText {
				return fmt.Errorf("more than %d bytes of text in one element", MaxText)
			}
			top.text = append(top.text, t...)
		} else if strings.TrimSpace(string(t)) != "" {
			return errors.New("text outside the root element")
		}
	case xml.Comment:
	case xml.ProcInst:
		if t.Target != "xml" || p.root != nil {
			return errors.New("processing instructions are not allowed")
		}
		if inst := strings.ToLower(string(t.Inst)); strings.Contains(inst, "encoding") && !strings.Contains(inst, "utf-8") {
			return errors.New("the encoding must be UTF-8")
		}
	case xml.Directive:
		return errors.New("document type declarations are not allowed")
	}
	return nil
}

func written(name xml.Name) string {
	if name.Space == "" {
		return name.Local
	}
	return name.Space + ":" + name.Local
}

func (p *parser) start(t xml.StartElement, line int) error {
	if p.root != nil && len(p.open) == 0 {
		return errors.New("a second root element")
	}
	if p.count++; p.count > MaxElements {
		return fmt.Errorf("more than %d elements", MaxElements)
	}
	if len(p.open) == MaxDepth {
		return fmt.Errorf("elements nested deeper than %d", MaxDepth)
	}
	if len(t.Attr) > MaxAttributes {
		return fmt.Errorf("more than %d attributes", MaxAttributes)
	}
	scope, err := p.declare(t.Attr)
	if err != nil {
		return err
	}
	n := &Node{Name: t.Name.Local, Line: line}
	if n.Space, err = lookup(scope, t.Name.Space); err != nil {
		return err
	}
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || a.Name == (xml.Name{Local: "xmlns"}) {
			continue
		}
		if a.Name.Space != "" {
			if a.Name.Space, err = lookup(scope, a.Name.Space); err != nil {
				return err
			}
		}
		for _, have := range n.Attrs {
			if have.Name == a.Name {
				return fmt.Errorf("attribute %s given twice", a.Name.Local)
			}
		}
		n.Attrs = append(n.Attrs, a)
	}
	if p.root == nil {
		p.root = n
	} else {
		top := p.open[len(p.open)-1]
		top.Children = append(top.Children, n)
	}
	p.open, p.raw, p.names = append(p.open, n), append(p.raw, written(t.Name)), append(p.names, scope)
	return nil
}

// declare returns the namespaces in force inside an element with attrs.
func (p *parser) declare(attrs []xml.Attr) (map[string]string, error) {
	scope := map[string]string{"xml": xmlSpace}
	if len(p.names) > 0 {
		scope = p.names[len(p.names)-1]
	}
	var own map[string]string
	for _, a := range attrs {
		prefix, ok := a.Name.Local, a.Name.Space == "xmlns"
		if a.Name == (xml.Name{Local: "xmlns"}) {
			prefix, ok = "", true
		}
		if !ok {
			continue
		}
		if _, twice := own[prefix]; twice {
			return nil, fmt.Errorf("prefix %q declared twice", prefix)
		}
		if prefix == "xml" || prefix == "xmlns" || prefix != "" && a.Value == "" {
			return nil, fmt.Errorf("prefix %q cannot be declared so", prefix)
		}
		if own == nil {
			own = map[string]string{}
		}
		own[prefix] = a.Value
	}
	if own == nil {
		return scope, nil
	}
	merged := make(map[string]string, len(scope)+len(own))
	for k, v := range scope {
		merged[k] = v
	}
	for k, v := range own {
		merged[k] = v
	}
	return merged, nil
}

func lookup(scope map[string]string, prefix string) (string, error) {
	space, ok := scope[prefix]
	if !ok && prefix != "" {
		return "", fmt.Errorf("prefix %q stands for no namespace", prefix)
	}
	return space, nil
}

// Attr returns an attribute without namespace, and remembers that it is known.
func (n *Node) Attr(name string) (string, bool) {
	for i, a := range n.Attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			n.seen |= 1 << i
			return a.Value, true
		}
	}
	return "", false
}

// Lang returns xml:lang of the element itself.
func (n *Node) Lang() string {
	for _, a := range n.Attrs {
		if a.Name.Space == xmlSpace && a.Name.Local == "lang" {
			return a.Value
		}
	}
	return ""
}

// Only is called after every known attribute was asked for: it refuses the
// others. What xml: and xsi: say changes no content and passes.
func (n *Node) Only() error {
	for i, a := range n.Attrs {
		if n.seen&(1<<i) == 0 && a.Name.Space != xmlSpace && a.Name.Space != xsiSpace {
			return n.Errorf("%s has an attribute that is not known: %q", n.Name, clip(a.Name.Local))
		}
	}
	return nil
}

// NoText refuses text in an element that has only other elements inside.
func (n *Node) NoText() error {
	if text := strings.TrimSpace(n.Text); text != "" {
		return n.Errorf("%s holds text, which it cannot: %q", n.Name, clip(text))
	}
	return nil
}

// NoChildren refuses elements in one that has only text inside.
func (n *Node) NoChildren() error {
	if len(n.Children) > 0 {
		return n.Children[0].Errorf("%s cannot hold %s", n.Name, clip(n.Children[0].Name))
	}
	return nil
}

// Errorf returns an error with the element's line.
func (n *Node) Errorf(format string, args ...any) error {
	return &Error{n.Line, fmt.Errorf(format, args...)}
}

// clip keeps a stranger's text from filling a message.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
