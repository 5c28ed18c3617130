// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// The files of a bundle besides policies/*.xml. All but the rules, which may be
// left out with their schema, must be there.
const (
	RulesFile   = "rules.cedar"
	SchemaFile  = "rules.cedarschema"
	DomainsFile = "domains.json"
	TestsFile   = "tests.json"
	policiesDir = "policies/"
)

// A File is one file of a bundle.
type File struct {
	Name string
	Data []byte
}

// Contents is a bundle that has been read and neither signed nor compiled.
type Contents struct {
	Version uint32 // from 1; only a higher one replaces a bundle
	Files   []File // sorted by name
}

var (
	policyName = regexp.MustCompile(`^policies/[a-z0-9][a-z0-9._-]*\.xml$`)

	// ErrMalformed is wrapped by errors about a file that is no bundle.
	ErrMalformed = errors.New("bundle: malformed")
)

const formatVersion = 1

// Marshal returns the encoding, spec/bundle.md, Section 2.
//
//	struct { opaque name<1..64>; opaque data<0..2^24-1>; } File;
//	struct { uint8 format = 1; uint32 version; File files<0..2^24-1>; } Bundle;
func (c *Contents) Marshal() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddUint8(formatVersion)
	b.AddUint32(c.Version)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, f := range c.Files {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(f.Name)) })
			b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(f.Data) })
		}
	})
	data, err := b.Bytes()
	if err == nil && len(data) > MaxSize {
		err = fmt.Errorf("bundle: %d bytes, at most %d are allowed", len(data), MaxSize)
	}
	return data, err
}

// Parse reads a bundle; it accepts exactly what Marshal writes.
func Parse(data []byte) (*Contents, error) {
	s, c := cryptobyte.String(data), new(Contents)
	var format uint8
	var files cryptobyte.String
	if len(data) > MaxSize || !s.ReadUint8(&format) || format != formatVersion || !s.ReadUint32(&c.Version) ||
		!s.ReadUint24LengthPrefixed(&files) || !s.Empty() {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	}
	for !files.Empty() {
		var name, content cryptobyte.String
		if len(c.Files) == maxFiles || !files.ReadUint8LengthPrefixed(&name) || !files.ReadUint24LengthPrefixed(&content) {
			return nil, fmt.Errorf("%w: file %d", ErrMalformed, len(c.Files)+1)
		}
		c.Files = append(c.Files, File{string(name), bytes.Clone(content)})
	}
	return c, c.check()
}

// Hash is what officers sign: the SHA-256 of the encoding.
func (c *Contents) Hash() ([sha256.Size]byte, error) {
	data, err := c.Marshal()
	return sha256.Sum256(data), err
}

// Read returns a file's data.
func (c *Contents) Read(name string) ([]byte, bool) {
	i, found := slices.BinarySearchFunc(c.Files, name, func(f File, name string) int { return strings.Compare(f.Name, name) })
	if !found {
		return nil, false
	}
	return c.Files[i].Data, true
}

func (c *Contents) check() error {
	if c.Version == 0 {
		return fmt.Errorf("%w: versions begin at 1", ErrMalformed)
	}
	if len(c.Files) > maxFiles {
		return fmt.Errorf("%w: %d files, at most %d are allowed", ErrMalformed, len(c.Files), maxFiles)
	}
	for i, f := range c.Files {
		if !known(f.Name) {
			return fmt.Errorf("%w: a file called %.80q has no place in a bundle", ErrMalformed, f.Name)
		}
		if len(f.Data) > maxFile {
			return fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrMalformed, f.Name, len(f.Data), maxFile)
		}
		if i > 0 && c.Files[i-1].Name >= f.Name {
			return fmt.Errorf("%w: %s is not in its place", ErrMalformed, f.Name)
		}
	}
	for _, name := range []string{DomainsFile, TestsFile} {
		if _, ok := c.Read(name); !ok {
			return fmt.Errorf("%w: %s is missing", ErrMalformed, name)
		}
	}
	_, rulesThere := c.Read(RulesFile)
	if _, schemaThere := c.Read(SchemaFile); rulesThere != schemaThere {
		return fmt.Errorf("%w: %s and %s belong together", ErrMalformed, RulesFile, SchemaFile)
	}
	return nil
}

func known(name string) bool {
	return slices.Contains([]string{RulesFile, SchemaFile, DomainsFile, TestsFile}, name) ||
		len(name) <= maxName && policyName.MatchString(name)
}

// Pack reads a folder as officers write it. Files that have no place in a bundle
// are errors: what somebody put there was meant to count.
func Pack(dir fs.FS, version uint32) (*Contents, error) {
	c := &Contents{Version: version}
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() > maxFile || len(c.Files) == maxFiles {
			return fmt.Errorf("bundle: %s: want a plain file of up to %d bytes, and up to %d of them", name, maxFile, maxFiles)
		}
		data, err := fs.ReadFile(dir, name)
		c.Files = append(c.Files, File{path.Clean(name), data})
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(c.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return c, c.check()
}
