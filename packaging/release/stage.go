// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"valise/packaging/manual"
	"valise/packaging/sbom"
)

// A program is what one package is about.
type program struct {
	name    string
	section int
	brief   string
	usage   string
	daemon  string // how its units and settings are called; empty: none
}

var programs = []program{
	{"valise", 1, "messages and files that only their two ends can open", "COMMAND [OPTION]...", ""},
	{"valise-enrolld", 8, "enrollment authority for devices with keys in hardware", "COMMAND --config FILE [OPTION]...", "enrolld"},
	{"valise-gatewayd", 8, "gateway that relays sealed messages between attested devices", "COMMAND --config FILE [OPTION]...", "gatewayd"},
}

// A stage is the folder that nfpm's files name paths in.
type stage struct {
	dir     string
	source  string // tree of the sources
	bin     string // folder of the programs
	version string
	time    time.Time

	// plain leaves packages as they are, uncompressed: for tests, which install them once.
	plain bool

	// modules gives the folder of a module, with its licence.
	modules func(module string) string
}

// fill lays out all that the packages hold.
func (s *stage) fill() error {
	for _, from := range []string{"systemd", "etc", "debian"} {
		if err := s.copyTree(filepath.Join(s.source, "packaging", from), from); err != nil {
			return err
		}
	}
	for _, p := range programs {
		if err := s.fillSettings(p); err != nil {
			return err
		}
		if err := s.fillProgram(p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// fillSettings writes what nfpm is told about a package.
func (s *stage) fillSettings(p program) error {
	name := p.name + ".yaml"
	text, err := os.ReadFile(filepath.Join(s.source, "packaging", "nfpm", name))
	if err != nil {
		return err
	}
	if s.plain {
		text = bytes.Replace(text, []byte("compression: gzip"), []byte("compression: none"), 1)
	}
	return s.write(filepath.Join("nfpm", name), text, 0o644)
}

func (s *stage) fillProgram(p program) error {
	binary := filepath.Join("bin", p.name)
	if err := s.copyFile(filepath.Join(s.bin, p.name), binary, 0o755); err != nil {
		return err
	}
	page, err := manual.Page(filepath.Join(s.source, "cmd", p.name, "main.go"), manual.Header{
		Name: p.name, Section: p.section, Brief: p.brief, Usage: p.usage, Source: "Valise " + s.version, Date: s.time,
	})
	if err != nil {
		return err
	}
	if err := s.writeZipped(filepath.Join("man", fmt.Sprintf("%s.%d.gz", p.name, p.section)), page); err != nil {
		return err
	}
	doc := filepath.Join("doc", p.name)
	if err := s.copyFile(filepath.Join(s.source, "packaging", "debian", "copyright"), filepath.Join(doc, "copyright"), 0o644); err != nil {
		return err
	}
	changelog, err := os.ReadFile(filepath.Join(s.source, "packaging", "debian", "changelog"))
	if err != nil {
		return err
	}
	if err := s.writeZipped(filepath.Join(doc, "changelog.gz"), bytes.ReplaceAll(changelog, []byte("valise ("), []byte(p.name+" ("))); err != nil {
		return err
	}
	bom, err := s.bill(p)
	if err != nil {
		return err
	}
	bill, err := bom.Marshal()
	if err != nil {
		return err
	}
	if err := s.write(filepath.Join(doc, p.name+".cdx.json"), bill, 0o644); err != nil {
		return err
	}
	licences, err := s.licences(bom)
	if err != nil {
		return err
	}
	return s.writeZipped(filepath.Join(doc, "third-party-licenses.gz"), licences)
}

func (s *stage) bill(p program) (*sbom.BOM, error) {
	sums, err := os.ReadFile(filepath.Join(s.source, "go.sum"))
	if err != nil {
		return nil, err
	}
	return sbom.Of(filepath.Join(s.dir, "bin", p.name), sbom.Config{Version: s.version, Time: s.time, Sums: sbom.Sums(sums)})
}

// licences collects those of every module that is linked in. A module without one may
// not be handed on, so it is an error.
func (s *stage) licences(bom *sbom.BOM) ([]byte, error) {
	var out bytes.Buffer
	for _, c := range bom.Components {
		dir := s.modules(c.Name)
		found := false
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("licence of %s: %w", c.Name, err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !isLicence(e.Name()) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			found = true
			fmt.Fprintf(&out, "==== %s %s: %s\n\n%s\n\n", c.Name, c.Version, e.Name(), bytes.TrimSpace(text))
		}
		if !found {
			return nil, fmt.Errorf("%s has no licence in %s", c.Name, dir)
		}
	}
	return out.Bytes(), nil
}

func isLicence(name string) bool {
	upper := strings.ToUpper(name)
	return slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}, func(p string) bool { return strings.HasPrefix(upper, p) })
}

func (s *stage) copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		within, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		return s.copyFile(name, filepath.Join(to, within), 0o644)
	})
}

func (s *stage) copyFile(from, to string, mode os.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.place(to, f, mode)
}

func (s *stage) writeZipped(to string, data []byte) error {
	z, err := zipped(data)
	if err != nil {
		return err
	}
	return s.write(to, z, 0o644)
}

func (s *stage) write(to string, data []byte, mode os.FileMode) error {
	return s.place(to, bytes.NewReader(data), mode)
}

// place writes a file with a mode that no umask changes, and the commit's time.
func (s *stage) place(to string, r io.Reader, mode os.FileMode) error {
	path := filepath.Join(s.dir, to)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return os.Chtimes(path, s.time, s.time)
}
