// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/internal/testenv"
)

// goVersion is what Go's own command lists of a binary.
func goVersion(t *testing.T, file string) []string {
	t.Helper()
	out, err := exec.Command("go", "version", "-m", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && f[0] == "dep":
			list = append(list, f[1]+" "+f[2])
		case len(f) >= 3 && f[0] == "=>":
			list[len(list)-1] = f[1] + " " + f[2]
		}
	}
	return list
}

// The bill of a real program has what "go version -m" says, with the hashes of
// go.sum; a bill that leaves out, adds or changes anything is refused.
func TestBill(t *testing.T) {
	file := testenv.Build(t, "./cmd/valise-gatewayd")
	sums, err := os.ReadFile(filepath.Join(testenv.Root(t), "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Version: "1.2.3", Time: time.Unix(1_700_000_000, 0), Sums: Sums(sums)}
	bom, err := Of(file, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range bom.Components[1:] {
		got = append(got, c.Name+" "+c.Version)
		if len(c.Properties) != 1 || !strings.HasPrefix(c.Properties[0].Value, "h1:") {
			t.Errorf("%s has no hash", c.Name)
		}
	}
	if want := goVersion(t, file); !slices.Equal(got, want) || len(want) < 20 {
		t.Errorf("the bill lists %q, go version -m %q", got, want)
	}
	data, err := bom.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(data, file); err != nil {
		t.Error(err)
	}
	again, err := Of(file, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := again.Marshal(); !bytes.Equal(other, data) {
		t.Error("two bills of one binary differ")
	}
	for name, alter := range map[string]func(*BOM){
		"a module left out":     func(b *BOM) { b.Components = b.Components[:len(b.Components)-1] },
		"a module too many":     func(b *BOM) { b.Components = append(b.Components, Component{Name: "example.org/x", Version: "v1.0.0"}) },
		"a module twice":        func(b *BOM) { b.Components = append(b.Components, b.Components[1]) },
		"another version":       func(b *BOM) { b.Components[1].Version += "-x" },
		"another binary's hash": func(b *BOM) { b.Metadata.Component.Hashes[0].Content = strings.Repeat("0", 64) },
	} {
		bad, err := Of(file, cfg)
		if err != nil {
			t.Fatal(err)
		}
		alter(bad)
		data, err := bad.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(data, file); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Check([]byte(`{"bomFormat":"CycloneDX","more":1}`), file); err == nil {
		t.Error("a bill with an unknown field passes")
	}
}
