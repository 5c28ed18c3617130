// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"time"
)

// A Dialect is the SQL that one database understands.
type Dialect int

const (
	// SQLite is the embedded default.
	SQLite Dialect = iota
	// PostgreSQL serves many nodes.
	PostgreSQL
)

func (d Dialect) String() string {
	if d == PostgreSQL {
		return "PostgreSQL"
	}
	return "SQLite"
}

// words are exchanged in migrations, upper case and as whole words only. SQLite's
// STRICT tables refuse BIGINT and BOOLEAN, and take "12x" for a number when they
// are not STRICT; PostgreSQL knows neither STRICT nor BLOB.
var words = map[Dialect]map[string]string{
	SQLite:     {"BIGINT": "INTEGER", "BOOLEAN": "INTEGER"},
	PostgreSQL: {"STRICT": "", "BLOB": "BYTEA"},
}

var (
	wordPattern = regexp.MustCompile(`\b[A-Z]+\b`)
	// blobPattern finds x'00ff', which is a bit string to PostgreSQL.
	blobPattern = regexp.MustCompile(`\bx'((?:[0-9a-f]{2})*)'`)
	// rowidPattern finds what PostgreSQL has no word for.
	rowidPattern = regexp.MustCompile(`, WITHOUT ROWID\b`)
	// onlyPatterns find lines that are a comment to the other database.
	onlyPatterns = map[Dialect]*regexp.Regexp{
		SQLite:     regexp.MustCompile(`(?m)^-- SQLite: `),
		PostgreSQL: regexp.MustCompile(`(?m)^-- PostgreSQL: `),
	}
)

// Translate returns a migration's text in the words of the dialect. Lines that begin
// with "-- PostgreSQL: " or "-- SQLite: " are for that alone.
func Translate(d Dialect, text []byte) []byte {
	text = onlyPatterns[d].ReplaceAll(text, nil)
	if d == PostgreSQL {
		text = blobPattern.ReplaceAll(text, []byte(`'\x$1'`))
		text = rowidPattern.ReplaceAll(text, nil)
	}
	return wordPattern.ReplaceAllFunc(text, func(w []byte) []byte {
		if to, ok := words[d][string(w)]; ok {
			return []byte(to)
		}
		return w
	})
}

// translated is a file system whose files are read in a dialect.
type translated struct {
	fs.FS
	dialect Dialect
}

func (t translated) Open(name string) (fs.File, error) {
	f, err := t.FS.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return f, err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	text = Translate(t.dialect, text)
	return &translatedFile{Reader: bytes.NewReader(text), info: sized{info, int64(len(text))}}, nil
}

// ReadDir lets fs.ReadDir and fs.Glob work on what t wraps.
func (t translated) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.FS, name) }

type translatedFile struct {
	*bytes.Reader
	info fs.FileInfo
}

func (f *translatedFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *translatedFile) Close() error               { return nil }

type sized struct {
	fs.FileInfo
	size int64
}

func (s sized) Size() int64 { return s.size }

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return errors.Join(ctx.Err(), context.Cause(ctx))
	case <-timer.C:
		return nil
	}
}
