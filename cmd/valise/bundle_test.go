// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/policy/bundle"
)

// An officer's way from nothing to a bundle: begin, check, test, change, compare.
func TestPolicyBundle(t *testing.T) {
	w := newPolicyWorld(t)
	begin := func(name string) string {
		dir := filepath.Join(w.dir, name)
		if out, status := policyRun(t, "new", dir, "--spif", w.france, "--domain", "interieur.example"); status != 0 {
			t.Fatalf("new: %q, status %d", out, status)
		}
		return dir
	}
	dir, next := begin("one"), begin("two")
	if out, status := policyRun(t, "check", dir); !strings.HasPrefix(out, "bundle: ok: 5 files, 0 rules\n") || status != 0 {
		t.Errorf("check: %q, status %d", out, status)
	}
	if out, status := policyRun(t, "test", dir); !strings.HasSuffix(out, "tests: 2 passed, 0 failed\n") || status != 0 {
		t.Errorf("test: %q, status %d", out, status)
	}
	if out, status := policyRun(t, "diff", dir, next); out != "" || status != 0 {
		t.Errorf("diff of equals: %q, status %d", out, status)
	}

	// A rule that closes what the tests want open.
	rule := `@id("nobody") forbid (principal, action, resource) unless { context has label };`
	if err := os.WriteFile(filepath.Join(next, bundle.RulesFile), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, status := policyRun(t, "test", next); !strings.Contains(out, "want grant, got rule\n") || !strings.HasSuffix(out, "1 failed\n") || status != 1 {
		t.Errorf("test: %q, status %d", out, status)
	}
	if out, status := policyRun(t, "check", next); out != "" || status != 1 {
		t.Errorf("check: %q, status %d", out, status)
	}
	want := "changed: rules.cedar\ndecided otherwise: an unlabelled message goes through: was grant, is rule\n"
	if out, status := policyRun(t, "diff", dir, next); out != want || status != 1 {
		t.Errorf("diff: %q, status %d", out, status)
	}
	if err := os.WriteFile(filepath.Join(next, bundle.RulesFile), []byte(strings.Replace(rule, "forbid", "permit", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, status := policyRun(t, "check", next); status != 1 {
		t.Errorf("a permit: status %d", status)
	}
	if _, status := policyRun(t, "new", dir, "--spif", w.france, "--domain", "interieur.example"); status != 2 {
		t.Errorf("a folder that exists: status %d", status)
	}
	if _, status := policyRun(t, "check", filepath.Join(w.dir, "none")); status != 2 {
		t.Errorf("no folder: status %d", status)
	}
}

func TestPolicyExplain(t *testing.T) {
	w := newPolicyWorld(t)
	dir := filepath.Join(w.dir, "bundle")
	if out, status := policyRun(t, "new", dir, "--spif", w.france, "--domain", "interieur.example"); status != 0 {
		t.Fatalf("new: %q, status %d", out, status)
	}
	secret, high, low := w.label("SECRET")[0], w.clearance("TRÈS SECRET")[0], w.clearance("DIFFUSION RESTREINTE")[0]
	for name, c := range map[string]struct {
		args   []string
		want   string
		status int
	}{
		"unlabelled":            {nil, "grant\n", 0},
		"cleared":               {[]string{"--label", secret, "--from-clearance", high, "--to-clearance", high}, "grant\n", 0},
		"recipient not cleared": {[]string{"--label", secret, "--from-clearance", high, "--to-clearance", low}, `refuse: classification (recipient): "SECRET" is not in the clearance` + "\n", 1},
		"sender not cleared":    {[]string{"--label", secret, "--from-clearance", low, "--to-clearance", high}, "refuse: classification (sender)", 1},
		"no clearance":          {[]string{"--label", secret, "--to-clearance", high}, "refuse: no_clearance (sender)", 1},
		"no such label":         {[]string{"--label", secret + "x"}, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"explain", dir, "--from", "alice@interieur.example", "--to", "bob@interieur.example"}, c.args...)
			if out, status := policyRun(t, args...); !strings.HasPrefix(out, c.want) || status != c.status {
				t.Errorf("%q, status %d", out, status)
			}
		})
	}
}
