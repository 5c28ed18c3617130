// SPDX-License-Identifier: Apache-2.0

// Package leak finds planted strings in logs: whether a log, an audit stream or what a
// collector got holds something that must never be there, such as the text of a message,
// a PIN, an invitation's key, a vault's key. Tests only.
//
//	secrets := []leak.Secret{{Name: "text of message 7", Value: []byte("…")}}
//	found, err := leak.Files(secrets, "audit.jsonl", "gateway.log")
//
// A secret is looked for as it is and in the forms that programs print bytes in:
// hexadecimal, in both cases and with separators, base64 of both alphabets at each of its
// three alignments, quoted as Go and JSON quote, percent-encoded, and as the list of
// numbers that %v makes of bytes.
//
// Never plant a short string, or one of words: what is found must be a leak. Values below
// MinSecret bytes are refused.
package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// MinSecret is how long a secret must be, in bytes, so that it is in no log by chance.
const MinSecret = 6

// A Secret must be in no log.
type Secret struct {
	Name  string // what a report says; never the value
	Value []byte
}

// A Find is a secret in a file.
type Find struct {
	Secret string
	Form   string // "as it is", "base64", …
	File   string
	Line   int
}

func (f Find) String() string {
	return fmt.Sprintf("%s is in %s, line %d (%s)", f.Secret, f.File, f.Line, f.Form)
}

// form is how a program may have printed a secret.
type form struct{ name, text string }

// forms of a value. Those that are the same as another one are left out.
func forms(value []byte) (all []form) {
	add := func(name, text string) {
		if len(text) >= MinSecret && !slices.ContainsFunc(all, func(f form) bool { return f.text == text }) {
			all = append(all, form{name, text})
		}
	}
	add("as it is", string(value))
	lower := hex.EncodeToString(value)
	add("hex", lower)
	add("hex, upper case", strings.ToUpper(lower))
	for _, separator := range []string{":", " ", "-"} {
		pairs := make([]string, len(value))
		for i, b := range value {
			pairs[i] = fmt.Sprintf("%02x", b)
		}
		joined := strings.Join(pairs, separator)
		add("hex with separators", joined)
		add("hex with separators", strings.ToUpper(joined))
	}
	for at := range 3 { // how many bytes stand before it in what was encoded
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			add("base64", aligned(encoding, value, at))
		}
	}
	quoted := strconv.Quote(string(value))
	add("quoted", quoted[1:len(quoted)-1])
	ascii := strconv.QuoteToASCII(string(value))
	add("quoted", ascii[1:len(ascii)-1])
	if text, err := json.Marshal(string(value)); err == nil {
		add("JSON", string(text[1:len(text)-1]))
	}
	add("percent-encoded", url.QueryEscape(string(value)))
	add("percent-encoded", url.PathEscape(string(value)))
	numbers := fmt.Sprint(value)
	add("numbers", numbers[1:len(numbers)-1])
	add("numbers", strings.ReplaceAll(numbers[1:len(numbers)-1], " ", ","))
	return all
}

// aligned is the part of a base64 text that depends on the value alone, when so many bytes
// stand before it.
func aligned(encoding *base64.Encoding, value []byte, before int) string {
	text := encoding.EncodeToString(append(make([]byte, before), value...))
	bits := 8 * before
	first := (bits + 5) / 6 // the first character without bits of others
	last := (bits + 8*len(value)) / 6
	if first >= last {
		return ""
	}
	return text[first:last]
}

// Files looks for secrets in files. A file that is missing is an error: a search in
// nothing finds nothing.
func Files(secrets []Secret, paths ...string) ([]Find, error) {
	f, err := New(secrets)
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, errors.New("leak: no files to look into")
	}
	var all []Find
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		found, err := f.Read(path, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// A Finder looks for secrets.
type Finder struct{ needles []needle }

type needle struct {
	secret string
	form   form
}

// New prepares the search.
func New(secrets []Secret) (*Finder, error) {
	if len(secrets) == 0 {
		return nil, errors.New("leak: nothing to look for")
	}
	f := new(Finder)
	for _, s := range secrets {
		if len(s.Value) < MinSecret {
			return nil, fmt.Errorf("leak: %s has %d bytes, which may be in a log by chance", s.Name, len(s.Value))
		}
		for _, form := range forms(s.Value) {
			f.needles = append(f.needles, needle{s.Name, form})
		}
	}
	return f, nil
}

// Read looks through a stream. Lines have no bound: logs of a soak fit into memory.
func (f *Finder) Read(name string, r io.Reader) (all []Find, err error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	for _, n := range f.needles {
		if at := bytes.Index(data, []byte(n.form.text)); at >= 0 { // the first of each form is enough
			all = append(all, Find{n.secret, n.form.name, name, 1 + bytes.Count(data[:at], []byte{'\n'})})
		}
	}
	return all, nil
}
