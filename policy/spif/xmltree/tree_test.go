// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	root, err := Parse([]byte("\ufeff<?xml version='1.0' encoding='utf-8'?>\n<!-- a --><a xmlns='urn:a' xmlns:b='urn:b' x='1' b:y='2' xml:lang='fr'>\n one <b:c/> two<!-- no -->\n</a>\n"))
	if err != nil {
		t.Fatal(err)
	}
	if root.Space != "urn:a" || root.Name != "a" || root.Line != 2 || root.Text != "\n one  two\n" || root.Lang() != "fr" {
		t.Errorf("%+v", root)
	}
	if c := root.Children[0]; c.Space != "urn:b" || c.Name != "c" || c.Line != 3 {
		t.Errorf("%+v", c)
	}
	if v, ok := root.Attr("x"); v != "1" || !ok {
		t.Error("attribute x is not found")
	}
	if _, ok := root.Attr("y"); ok {
		t.Error("an attribute of another namespace is taken for one without")
	}
	if err := root.Only(); err == nil {
		t.Error("an attribute that nobody asked for passes")
	}
	if root.NoText() == nil || root.NoChildren() == nil {
		t.Error("text and children go unnoticed")
	}
}

// What two readers could understand differently is refused, with its line.
func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name, text string
		line       int
	}{
		{"empty", "", 1},
		{"text alone", "a", 1},
		{"never closed", "<a>\n<b></b>\n", 3},
		{"closed by another name", "<a>\n</b>", 2},
		{"closed by another prefix", "<x:a xmlns:x='u' xmlns:y='u'>\n</y:a>", 2},
		{"closed twice", "<a></a>\n</a>", 2},
		{"second root", "<a/>\n<b/>", 2},
		{"text after", "<a/>\nb", 2},
		{"entity", "<!DOCTYPE a [<!ENTITY b 'c'>]>\n<a>&b;</a>", 1},
		{"entity without declaration", "<a>\n&b;</a>", 2},
		{"instruction", "<a>\n<?b c?></a>", 2},
		{"instruction before", "<?b c?>\n<a/>", 1},
		{"late declaration", "<a>\n<?xml version='1.0'?></a>", 2},
		{"another encoding", "<?xml version='1.0' encoding='iso-8859-1'?>\n<a/>", 1},
		{"not UTF-8", "<a>\n\xff</a>", 2},
		{"attribute twice", "<a\nb='1' b='2'/>", 2},
		{"attribute twice by two prefixes", "<a xmlns:x='u' xmlns:y='u'\nx:b='1' y:b='2'/>", 2},
		{"prefix of nothing", "<a>\n<x:b/></a>", 2},
		{"prefix of nothing on an attribute", "<a>\n<b x:c='1'/></a>", 2},
		{"prefix declared twice", "<a xmlns:x='u'\nxmlns:x='v'/>", 2},
		{"prefix undeclared", "<a xmlns:x=''/>", 1},
		{"xml declared", "<a xmlns:xml='u'/>", 1},
		{"too deep", strings.Repeat("<a>", MaxDepth+1) + strings.Repeat("</a>", MaxDepth+1), 1},
		{"too many", "<a>" + strings.Repeat("<b/>", MaxElements) + "</a>", 1},
		{"too many attributes", "<a " + manyAttributes(MaxAttributes+1) + "/>", 1},
		{"too much text", "<a>" + strings.Repeat(" <b/>"+strings.Repeat(" ", 99), MaxText/100+1) + "</a>", 1},
	}
	for _, test := range tests {
		_, err := Parse([]byte(test.text))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Line != test.line {
			t.Errorf("%s: %v, want line %d", test.name, err, test.line)
		}
	}
	if _, err := Parse([]byte("<a " + manyAttributes(MaxAttributes) + "/>")); err != nil {
		t.Errorf("as many attributes as are allowed: %v", err)
	}
	if _, err := Parse([]byte(strings.Repeat("<a>", MaxDepth) + strings.Repeat("</a>", MaxDepth))); err != nil {
		t.Errorf("as deep as is allowed: %v", err)
	}
}

func manyAttributes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" a" + strings.Repeat("b", i) + "='1'")
	}
	return b.String()
}

// A default namespace can be taken back; inside it names have none.
func TestNoNamespace(t *testing.T) {
	root, err := Parse([]byte("<a xmlns='u'><b xmlns=''><c/></b><d/></a>"))
	if err != nil {
		t.Fatal(err)
	}
	if b := root.Children[0]; b.Space != "" || b.Children[0].Space != "" || root.Children[1].Space != "u" {
		t.Errorf("%+v", b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("<a xmlns='u' xmlns:b='v' b:c='d'>e<b:f/></a>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		root, err := Parse(data)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("no line: %v", err)
			}
			return
		}
		depth(t, root, 1)
	})
}

func depth(t *testing.T, n *Node, at int) {
	if n.Name == "" || n.Line < 1 || at > MaxDepth || len(n.Attrs) > MaxAttributes {
		t.Fatalf("%+v at depth %d", n, at)
	}
	for _, c := range n.Children {
		depth(t, c, at+1)
	}
}
