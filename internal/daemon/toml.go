// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxConfigBytes bounds a configuration file; the largest real one has some dozens
// of lines.
const maxConfigBytes = 1 << 20

// ErrUnknownKey is wrapped by the error for each key that the struct does not have.
var ErrUnknownKey = errors.New("unknown key")

// LoadTOML decodes a configuration file into a struct. A key that the struct does not have
// is an error that names file, line and key, as is a value of another type: a
// misspelt restriction must not be a missing one.
func LoadTOML(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if len(data) > maxConfigBytes {
		return fmt.Errorf("configuration: %s is larger than %d bytes", path, maxConfigBytes)
	}
	if err := DecodeTOML(string(data), into); err != nil {
		return fmt.Errorf("configuration: %s: %w", path, err)
	}
	return nil
}

// DecodeTOML is LoadTOML for a text.
func DecodeTOML(text string, into any) error {
	meta, err := toml.Decode(text, into)
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %s", parse.Position.Line, strings.TrimPrefix(parse.Message, "toml: "))
	}
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "toml: ")) // a wrong type; it names line and key
	}
	var all []error
	for _, key := range meta.Undecoded() {
		if line := lineOf(text, key); line > 0 {
			all = append(all, fmt.Errorf("line %d: %w %q", line, ErrUnknownKey, key.String()))
		} else {
			all = append(all, fmt.Errorf("%w %q", ErrUnknownKey, key.String()))
		}
	}
	return errors.Join(all...)
}

// lineOf finds where a key stands, or 0: the decoder does not tell. It reads table
// headers and the names before "=".
func lineOf(text string, key toml.Key) int {
	var table []string
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if header, ok := strings.CutPrefix(line, "["); ok {
			header, _, _ = strings.Cut(strings.TrimPrefix(header, "["), "]")
			table = dotted(header)
			if same(table, key) {
				return i + 1
			}
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		if ok && same(append(table[:len(table):len(table)], dotted(name)...), key) {
			return i + 1
		}
	}
	return 0
}

func dotted(name string) []string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = strings.Trim(strings.TrimSpace(p), `"'`)
	}
	return parts
}

func same(a []string, b toml.Key) bool {
	return strings.Join(a, "\x00") == strings.Join(b, "\x00")
}

// A Duration is a duration in a configuration file, written like "90s" or "24h".
type Duration struct{ time.Duration }

// UnmarshalText accepts what time.ParseDuration accepts, and nothing negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration like \"90s\" or \"24h\"", text)
	}
	d.Duration = v
	return nil
}
