// SPDX-License-Identifier: Apache-2.0

package spif

import (
	"bytes"
	"encoding/xml"
	"strconv"
	"strings"
	"time"
)

// Marshal writes d as XML, elements in the order of the schema, defaults left
// out. Parse of the outcome is d, but for lines.
func Marshal(d *Document) []byte {
	w := new(writer)
	w.WriteString(xml.Header)
	edition := ""
	if d.Edition != 1 {
		edition = strconv.FormatUint(uint64(d.Edition), 10)
	}
	w.open("SPIF", attr{"xmlns", Namespace}, attr{"schemaVersion", d.SchemaVersion}, optional("version", edition),
		attr{"creationDate", d.CreationDate}, attr{"originatorDN", d.OriginatorDN}, attr{"keyIdentifier", d.KeyIdentifier},
		attr{"privilegeId", d.PrivilegeID}, attr{"rbacId", d.RBACID},
		optional("userRefURI", d.UserRefURI), optional("docRefURI", d.DocRefURI),
		optional("notBefore", date(d.NotBefore)), optional("notAfter", date(d.NotAfter)))
	if d.DefaultPolicy != nil {
		w.policy("defaultSecurityPolicyId", d.DefaultPolicy)
	}
	w.policy("securityPolicyId", &d.Policy)
	w.open("securityClassifications", optional("name", d.ClassificationsTag))
	for i := range d.Classifications {
		w.classification(&d.Classifications[i])
	}
	w.marking(&d.ClassMarking)
	w.close()
	if len(d.TagSets) > 0 {
		w.open("securityCategoryTagSets")
		for i := range d.TagSets {
			w.tagSet(&d.TagSets[i])
		}
		w.close()
	}
	w.privacyMarks(d.PrivacyMarks)
	if len(d.EquivalentPolicies) > 0 {
		w.open("equivalentPolicies")
		for _, e := range d.EquivalentPolicies {
			w.open("equivalentPolicy", attr{"name", e.Name}, attr{"id", e.ID}, optional("userRefURI", e.UserRefURI), optional("docRefURI", e.DocRefURI))
			w.groups(e.Required)
			w.close()
		}
		w.close()
	}
	w.marking(&d.Marking)
	w.close()
	return w.Bytes()
}

type attr struct{ name, value string }

// optional leaves an attribute out where it is empty.
func optional(name, value string) attr {
	if value == "" {
		return attr{}
	}
	return attr{name, value}
}

func flag(name string, set bool) attr {
	if !set {
		return attr{}
	}
	return attr{name, "true"}
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// A writer writes elements, indented by depth.
type writer struct {
	bytes.Buffer
	names []string
}

func (w *writer) start(name string, attrs []attr) {
	w.WriteString(strings.Repeat("  ", len(w.names)) + "<" + name)
	for _, a := range attrs {
		if a.name == "" {
			continue
		}
		w.WriteString(" " + a.name + `="`)
		w.text(a.value)
		w.WriteString(`"`)
	}
}

func (w *writer) open(name string, attrs ...attr) {
	w.start(name, attrs)
	w.WriteString(">\n")
	w.names = append(w.names, name)
}

func (w *writer) close() {
	name := w.names[len(w.names)-1]
	w.names = w.names[:len(w.names)-1]
	w.WriteString(strings.Repeat("  ", len(w.names)) + "</" + name + ">\n")
}

func (w *writer) empty(name string, attrs ...attr) {
	w.start(name, attrs)
	w.WriteString("/>\n")
}

func (w *writer) value(name, text string) {
	w.start(name, nil)
	w.WriteString(">")
	w.text(text)
	w.WriteString("</" + name + ">\n")
}

// text escapes; a bytes.Buffer takes everything.
func (w *writer) text(s string) { _ = xml.EscapeText(&w.Buffer, []byte(s)) }

func (w *writer) policy(name string, p *Policy) {
	w.open(name, attr{"name", p.Name}, attr{"id", p.ID})
	w.marking(&p.Marking)
	w.close()
}

func (w *writer) classification(c *Classification) {
	w.open("securityClassification", attr{"name", c.Name}, attr{"lacv", strconv.Itoa(c.LACV)},
		attr{"hierarchy", strconv.Itoa(c.Hierarchy)}, optional("color", c.Color), flag("obsolete", c.Obsolete))
	for _, e := range c.Equivalents {
		w.open("equivalentClassification", attr{"policyRef", e.PolicyRef}, attr{"lacv", strconv.Itoa(e.LACV)}, attr{"applied", e.Applied})
		w.groups(e.Required)
		w.close()
	}
	w.marking(&c.Marking)
	w.groups(c.Required)
	w.close()
}

func (w *writer) tagSet(s *TagSet) {
	w.open("securityCategoryTagSet", attr{"name", s.Name}, attr{"id", s.ID})
	for i := range s.Tags {
		t := &s.Tags[i]
		spelt := written[t.Type]
		w.open("securityCategoryTag", attr{"name", t.Name}, attr{"tagType", spelt.tagType}, optional("enumType", spelt.enumType),
			optional("tag7Encoding", spelt.encoding), optional("minSelection", count(t.MinSelection, 0)), optional("maxSelection", count(t.MaxSelection, Unbounded)))
		for j := range t.Categories {
			w.category(&t.Categories[j])
		}
		w.qualifiers(t.Qualifiers)
		w.close()
	}
	for _, e := range s.Equivalents {
		w.open("equivalentSecurityCategoryTagSet", attr{"policyRef", e.PolicyRef}, optional("name", e.Name), optional("id", e.ID))
		w.groups(e.Required)
		w.close()
	}
	w.close()
}

// count leaves out a selection limit that is the default.
func count(n, standard int) string {
	if n == standard {
		return ""
	}
	return strconv.Itoa(n)
}

func (w *writer) category(c *Category) {
	w.open("tagCategory", attr{"name", c.Name}, attr{"lacv", c.LACV}, optional("userInput", c.UserInput), optional("requiredClass", c.RequiredClass),
		flag("obsolete", c.Obsolete), optional("dateFormat", c.DateFormat), optional("notBefore", date(c.NotBefore)), optional("notAfter", date(c.NotAfter)))
	for _, e := range c.Equivalents {
		spelt := written[e.Type]
		action := ""
		if e.Discard {
			action = "discard"
		}
		w.empty("equivalentSecCategoryTag", attr{"policyRef", e.PolicyRef}, attr{"tagSetId", e.TagSetID}, attr{"tagType", spelt.tagType},
			optional("enumType", spelt.enumType), attr{"lacv", e.LACV}, attr{"applied", e.Applied}, optional("action", action))
	}
	w.marking(&c.Marking)
	for _, name := range c.ExcludedClass {
		w.value("excludedClass", name)
	}
	w.groups(c.Required)
	for _, ref := range c.Excluded {
		w.reference("excludedCategory", ref)
	}
	w.close()
}

func (w *writer) privacyMarks(p *PrivacyMarks) {
	if p == nil {
		return
	}
	w.open("privacyMarks", optional("maxSelection", count(p.MaxSelection, Unbounded)), optional("minSelection", count(p.MinSelection, 0)))
	for i := range p.Marks {
		m := &p.Marks[i]
		w.open("privacyMark", attr{"name", m.Name}, flag("obsolete", m.Obsolete))
		w.marking(&m.Marking)
		w.close()
	}
	w.marking(&p.Marking)
	w.close()
}

func (w *writer) groups(groups []Group) {
	for _, g := range groups {
		w.open("requiredCategory", attr{"operation", g.Operation})
		for _, ref := range g.References {
			w.reference("categoryGroup", ref)
		}
		w.close()
	}
}

func (w *writer) reference(name string, ref Reference) {
	spelt := written[ref.Type]
	w.empty(name, attr{"tagSetRef", ref.TagSet}, attr{"tagType", spelt.tagType}, optional("enumType", spelt.enumType),
		optional("lacv", ref.LACV), flag("all", ref.LACV == ""))
}

func (w *writer) marking(m *Marking) {
	for _, d := range m.Data {
		phrase := attr{}
		if d.HasPhrase {
			phrase = attr{"phrase", d.Phrase}
		}
		w.open("markingData", phrase, optional("xml:lang", d.Lang))
		for _, code := range d.Codes {
			w.value("code", code)
		}
		w.close()
	}
	w.qualifiers(m.Qualifiers)
}

func (w *writer) qualifiers(list []MarkingQualifier) {
	for _, q := range list {
		w.open("markingQualifier", optional("markingCode", q.Code), optional("xml:lang", q.Lang))
		for _, each := range q.Qualifiers {
			w.empty("qualifier", attr{"markingQualifier", each.Text}, attr{"qualifierCode", each.Code})
		}
		w.close()
	}
}
