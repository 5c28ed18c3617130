// SPDX-License-Identifier: Apache-2.0

// Package sbom writes and checks bills of materials (CycloneDX 1.5, JSON) of Go
// programs. What is in one is read from the finished binary, as the linker wrote it
// there: nothing can be linked and not listed.
//
//	bom, err := sbom.Of("bin/valise-gatewayd", sbom.Config{Version: "1.2.3", Sums: sums, Time: commit})
//	data, err := bom.Marshal()
//	err = sbom.Check(data, "bin/valise-gatewayd")
//
// The same binary gives the same bytes. Never write one from go.mod: a module that is
// required there may not be in the program, and one that is replaced is another.
package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// A Config says what a binary does not say of itself.
type Config struct {
	Version string            // of the program
	Time    time.Time         // of its sources
	Sums    map[string]string // "module version" to the hash in go.sum; what is missing is left out
}

// A BOM is a bill of materials, as far as ours use CycloneDX.
type BOM struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     Metadata     `json:"metadata"`
	Components   []Component  `json:"components"`
	Dependencies []Dependency `json:"dependencies"`
}

// Metadata is about the program itself.
type Metadata struct {
	Timestamp string    `json:"timestamp"`
	Component Component `json:"component"`
}

// A Component is the program, a module in it, or Go's standard library.
type Component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []Hash     `json:"hashes,omitempty"`
	Properties []Property `json:"properties,omitempty"`
}

// A Hash is of the program's file.
type Hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

// A Property is what CycloneDX has no field for.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Dependency says what the program was linked with.
type Dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// The names of properties.
const (
	propertySum     = "valise:go.sum"
	propertySetting = "valise:build:"
)

// Of reads a binary.
func Of(file string, cfg Config) (*BOM, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, err
	}
	digest, err := hash(file)
	if err != nil {
		return nil, err
	}
	program := Component{
		Type: "application", Ref: "program", Name: path.Base(info.Path), Version: cfg.Version,
		Hashes: []Hash{{"SHA-256", hex.EncodeToString(digest)}},
	}
	for _, s := range info.Settings {
		program.Properties = append(program.Properties, Property{propertySetting + s.Key, s.Value})
	}
	parts := []Component{{
		Type: "library", Ref: "std", Name: "std", Version: info.GoVersion,
		PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
	}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := Component{Type: "library", Ref: m.Path, Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
		if sum := cmp.Or(m.Sum, cfg.Sums[m.Path+" "+m.Version]); sum != "" {
			c.Properties = []Property{{propertySum, sum}}
		}
		parts = append(parts, c)
	}
	b := &BOM{
		Format: "CycloneDX", Spec: "1.5", Serial: serial(digest), Version: 1,
		Metadata: Metadata{cfg.Time.UTC().Format(time.RFC3339), program}, Components: parts,
	}
	uses := Dependency{Ref: program.Ref}
	for _, c := range parts {
		uses.On = append(uses.On, c.Ref)
	}
	b.Dependencies = []Dependency{uses}
	return b, nil
}

// Marshal returns the bill's file.
func (b *BOM) Marshal() ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(b)
	return out.Bytes(), err
}

// ErrMismatch is wrapped when a bill is not of its binary.
var ErrMismatch = errors.New("sbom: the bill is not of this binary")

// maxBill bounds a bill; ours have some 20 KiB.
const maxBill = 16 << 20

// Check compares a bill with a binary: its hash, Go's version, and each module, none
// missing and none too many.
func Check(bill []byte, file string) error {
	if len(bill) > maxBill {
		return fmt.Errorf("%w: it has %d bytes", ErrMismatch, len(bill))
	}
	var told BOM
	strict := json.NewDecoder(bytes.NewReader(bill))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&told); err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	is, err := Of(file, Config{})
	if err != nil {
		return err
	}
	if !slices.Equal(told.Metadata.Component.Hashes, is.Metadata.Component.Hashes) {
		return fmt.Errorf("%w: another hash of %s", ErrMismatch, file)
	}
	listed, linked := versions(told.Components), versions(is.Components)
	for _, one := range linked {
		if !slices.Contains(listed, one) {
			return fmt.Errorf("%w: it does not list %s", ErrMismatch, one)
		}
	}
	for i, one := range listed {
		if !slices.Contains(linked, one) || slices.Contains(listed[:i], one) {
			return fmt.Errorf("%w: %s is not linked, or listed twice", ErrMismatch, one)
		}
	}
	return nil
}

func versions(all []Component) []string {
	var out []string
	for _, c := range all {
		out = append(out, c.Name+" "+c.Version)
	}
	return out
}

// Sums reads a go.sum: the hashes of modules, not those of their go.mod files.
func Sums(data []byte) map[string]string {
	sums := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && !strings.HasSuffix(f[1], "/go.mod") {
			sums[f[0]+" "+f[1]] = f[2]
		}
	}
	return sums
}

func hash(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// serial is a UUID made from the binary's hash (RFC 9562, Section 5.8).
func serial(digest []byte) string {
	u := slices.Clone(digest[:16])
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
