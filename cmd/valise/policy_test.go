// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"valise/internal/testenv"
	"valise/policy"
	"valise/policy/spif"
)

const policyArc = "1.2.840.113556.1.8000.2554.18213.59516.26747.17558.47525.5520943.4926459.3"

// policyWorld writes labels of the starter policies in every form, and
// clearances, to files.
type policyWorld struct {
	t      *testing.T
	dir    string
	france string
	set    *policy.Set
}

func newPolicyWorld(t *testing.T) *policyWorld {
	t.Helper()
	w := &policyWorld{t: t, dir: t.TempDir(), france: filepath.Join(testenv.Root(t), "policies", "france.xml")}
	data, err := os.ReadFile(w.france)
	if err != nil {
		t.Fatal(err)
	}
	d, err := spif.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if w.set, err = policy.Compile(d); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *policyWorld) file(name string, data []byte, err error) string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *policyWorld) oid(below string) policy.OID {
	w.t.Helper()
	id, err := policy.ParseOID(policyArc + below)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *policyWorld) special() policy.Category {
	return policy.Category{Set: w.oid(".1.1"), Tag: "Mention", Name: "SPÉCIAL FRANCE"}
}

// label writes one label in three forms: XML, BER, canonical.
func (w *policyWorld) label(class string, categories ...policy.Category) [3]string {
	w.t.Helper()
	r, err := w.set.Resolve(&policy.Label{Policy: w.oid(".1"), Classification: class, Categories: categories}, policy.Stored, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := r.XML(policy.XMLLabel{Created: time.Now()})
	xml := w.file(class+".xml", text, err)
	der, err := r.ESS()
	ber := w.file(class+".ber", der, err)
	canonical, err := r.Label().Marshal()
	return [3]string{xml, ber, w.file(class+".label", canonical, err)}
}

// clearance writes one clearance in both forms.
func (w *policyWorld) clearance(upTo string, categories ...policy.Category) [2]string {
	w.t.Helper()
	c, err := w.set.Issue(policy.Grant{Policy: w.oid(".1"), UpTo: upTo, Categories: categories}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := c.Marshal()
	ber := w.file(upTo+".clearance.ber", der, err)
	text, err := policy.ClearanceXML(c)
	return [2]string{ber, w.file(upTo+".clearance.xml", text, err)}
}

// policyRun parses a command line as main does, runs it, and returns what it
// printed and its exit status.
func policyRun(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var c struct {
		Policy PolicyCmd `cmd:""`
	}
	var out bytes.Buffer
	parser, err := kong.New(&c, kong.Exit(func(int) { t.Error("kong exits") }))
	if err != nil {
		t.Fatal(err)
	}
	k, err := parser.Parse(append([]string{"policy"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	switch k.Command() {
	case "policy label <label>":
		err = c.Policy.Label.Run(&out)
	case "policy decide <label>":
		err = c.Policy.Decide.Run(&out)
	case "policy new <dir>":
		err = c.Policy.New.Run(&out)
	case "policy check <bundle>":
		err = c.Policy.Check.Run(&out)
	case "policy test <bundle>":
		err = c.Policy.Test.Run(&out)
	case "policy explain <bundle>":
		err = c.Policy.Explain.Run(&out)
	case "policy diff <old> <new>":
		err = c.Policy.Diff.Run(&out)
	default:
		t.Fatalf("command %q", k.Command())
	}
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &coded):
		return out.String(), coded.ExitCode()
	}
	t.Fatalf("an error without status: %v", err)
	return "", 0
}

func TestPolicyLabel(t *testing.T) {
	w := newPolicyWorld(t)
	for _, file := range w.label("TRÈS SECRET", w.special()) {
		for lang, marking := range map[string]string{"fr": "TRÈS SECRET - SPÉCIAL FRANCE", "en": "TOP SECRET - FRENCH EYES ONLY"} {
			if out, status := policyRun(t, "label", "--spif", w.france, "--lang", lang, file); out != "valid: "+marking+"\n" || status != 0 {
				t.Errorf("%s in %s: %q, status %d", file, lang, out, status)
			}
		}
	}
	old := w.label("CONFIDENTIEL DÉFENSE")
	for _, file := range old {
		if out, status := policyRun(t, "label", "--spif", w.france, file); !strings.HasPrefix(out, "invalid: obsolete: ") || status != 1 {
			t.Errorf("obsolete: %q, status %d", out, status)
		}
		if out, status := policyRun(t, "label", "--stored", "--spif", w.france, file); out != "valid: CONFIDENTIEL DÉFENSE\n" || status != 0 {
			t.Errorf("obsolete, stored: %q, status %d", out, status)
		}
	}
	// One line each, in order; one that is invalid is enough for status 1.
	secret := w.label("SECRET")
	if out, status := policyRun(t, "label", "--spif", w.france, secret[0], old[1], secret[2]); strings.Count(out, "\n") != 3 ||
		!strings.HasPrefix(out, "valid: SECRET\ninvalid: obsolete") || !strings.HasSuffix(out, "\nvalid: SECRET\n") || status != 1 {
		t.Errorf("three labels: %q, status %d", out, status)
	}
}

func TestPolicyDecide(t *testing.T) {
	w := newPolicyWorld(t)
	tests := []struct {
		clearance [2]string
		label     [3]string
		want      string
		status    int
	}{
		{w.clearance("SECRET"), w.label("SECRET"), "grant\n", 0},
		{w.clearance("SECRET"), w.label("DIFFUSION RESTREINTE"), "grant\n", 0},
		{w.clearance("DIFFUSION RESTREINTE"), w.label("SECRET"), "deny: classification: ", 1},
		{w.clearance("TRÈS SECRET"), w.label("TRÈS SECRET", w.special()), "deny: restrictive: \"SPÉCIAL FRANCE\"", 1},
		{w.clearance("NON MARQUÉ", w.special()), w.label("NON MARQUÉ"), "grant\n", 0},
		{w.clearance("SECRET"), w.label("CONFIDENTIEL DÉFENSE"), "deny: obsolete: ", 1},
	}
	for _, test := range tests {
		for _, clearance := range test.clearance {
			for _, label := range test.label {
				out, status := policyRun(t, "decide", "--spif", w.france, "--clearance", clearance, label)
				if !strings.HasPrefix(out, test.want) || status != test.status || strings.Count(out, "\n") != 1 {
					t.Errorf("%s for %s: %q, status %d, want %q", label, clearance, out, status, test.want)
				}
			}
		}
	}
}

// A policy that is not given denies; what cannot be read at all is status 2.
func TestPolicyUnreadable(t *testing.T) {
	w := newPolicyWorld(t)
	tlp := filepath.Join(testenv.Root(t), "policies", "tlp.xml")
	label, clearance := w.label("SECRET"), w.clearance("SECRET")
	garbage := w.file("garbage", []byte("SECRET"), nil)
	cut := w.file("cut.xml", []byte("<ConfidentialityLabel"), nil)
	large := w.file("large", bytes.Repeat([]byte(" "), policy.MaxLabelFile+1), nil)
	text, err := os.ReadFile(label[0])
	if err != nil {
		t.Fatal(err)
	}
	const class = "<Classification>SECRET</Classification>"
	twice := w.file("twice.xml", bytes.Replace(text, []byte(class), []byte(class+class), 1), nil)
	empty := w.file("empty", nil, nil)
	tests := []struct {
		name   string
		args   []string
		want   string
		status int
	}{
		{"control", []string{"label", "--spif", tlp, "--spif", w.france, label[1]}, "valid: SECRET\n", 0},
		{"another policy", []string{"label", "--spif", tlp, label[1]}, "invalid: unknown_policy: ", 1},
		{"clearance of another policy", []string{"decide", "--spif", tlp, "--clearance", clearance[0], label[1]}, "deny: unknown_policy: ", 1},
		{"label with two classifications", []string{"label", "--spif", w.france, twice}, "invalid: malformed: ", 1},
		{"label that is none", []string{"label", "--spif", w.france, garbage}, "", 2},
		{"label cut short", []string{"label", "--spif", w.france, cut}, "", 2},
		{"label too large", []string{"label", "--spif", w.france, large}, "", 2},
		{"empty label", []string{"label", "--spif", w.france, empty}, "", 2},
		{"no such label", []string{"label", "--spif", w.france, filepath.Join(w.dir, "none")}, "", 2},
		{"SPIF that is none", []string{"label", "--spif", label[0], label[1]}, "", 2},
		{"SPIF twice", []string{"label", "--spif", w.france, "--spif", w.france, label[1]}, "", 2},
		{"no such SPIF", []string{"label", "--spif", filepath.Join(w.dir, "none"), label[1]}, "", 2},
		{"clearance that is none", []string{"decide", "--spif", w.france, "--clearance", label[0], label[1]}, "", 2},
		{"no such clearance", []string{"decide", "--spif", w.france, "--clearance", filepath.Join(w.dir, "none"), label[1]}, "", 2},
	}
	for _, test := range tests {
		out, status := policyRun(t, test.args...)
		if !strings.HasPrefix(out, test.want) || (test.want == "") != (out == "") || status != test.status {
			t.Errorf("%s: %q, status %d, want %q, %d", test.name, out, status, test.want, test.status)
		}
	}
}
