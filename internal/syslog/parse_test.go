// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// parsed is a message as RFC 5424 has it.
type parsed struct {
	priority                         int
	time                             time.Time
	host, program, process, id, text string
	elements                         []string                     // SD-IDs in order
	params                           map[string]map[string]string // by SD-ID and name
}

var head = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)

// parse takes what RFC 5424, Section 6, allows and nothing else.
func parse(text string) (*parsed, error) {
	m := head.FindStringSubmatch(text)
	if m == nil {
		return nil, errors.New("no header")
	}
	p := &parsed{host: m[3], program: m[4], process: m[5], id: m[6], params: map[string]map[string]string{}}
	if _, err := fmt.Sscan(m[1], &p.priority); err != nil || p.priority > 191 {
		return nil, fmt.Errorf("priority %s", m[1])
	}
	var err error
	if p.time, err = time.Parse(time.RFC3339Nano, m[2]); err != nil {
		return nil, err
	}
	rest := text[len(m[0]):]
	for strings.HasPrefix(rest, "[") {
		if rest, err = p.element(rest[1:]); err != nil {
			return nil, err
		}
	}
	if len(p.elements) == 0 {
		return nil, errors.New("no structured data")
	}
	var ok bool
	if p.text, ok = strings.CutPrefix(rest, " "); !ok {
		return nil, fmt.Errorf("after the structured data: %q", rest)
	}
	for _, c := range []byte(p.text) {
		if c < ' ' || c > '~' {
			return nil, fmt.Errorf("byte %#x in the text", c)
		}
	}
	return p, nil
}

var name = regexp.MustCompile(`^[!#-<>-\\^-~]{1,32}`)

// element reads "SD-ID *(SP SD-PARAM) ]".
func (p *parsed) element(rest string) (string, error) {
	id := name.FindString(rest)
	if id == "" || p.params[id] != nil {
		return "", fmt.Errorf("SD-ID at %.20q", rest)
	}
	p.elements, p.params[id] = append(p.elements, id), map[string]string{}
	for rest = rest[len(id):]; ; {
		if after, ok := strings.CutPrefix(rest, "]"); ok {
			return after, nil
		}
		after, ok := strings.CutPrefix(rest, " ")
		n := name.FindString(after)
		if !ok || n == "" || !strings.HasPrefix(after[len(n):], `="`) {
			return "", fmt.Errorf("parameter at %.20q", rest)
		}
		value, left, err := quoted(after[len(n)+2:])
		if err != nil {
			return "", err
		}
		p.params[id][n], rest = value, left
	}
}

func quoted(rest string) (value, left string, err error) {
	var b strings.Builder
	for i := 0; i < len(rest); {
		r, size := utf8.DecodeRuneInString(rest[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return "", "", errors.New("no UTF-8")
		case r < ' ' || r == 0x7f:
			return "", "", fmt.Errorf("control character %#x", r)
		case r == '"':
			return b.String(), rest[i+1:], nil
		case r == ']':
			return "", "", errors.New("bracket without a backslash")
		case r == '\\':
			if i+1 == len(rest) || !strings.ContainsRune(`"\]`, rune(rest[i+1])) {
				return "", "", errors.New("backslash before what needs none")
			}
			b.WriteByte(rest[i+1])
			i += 2
			continue
		}
		b.WriteString(rest[i : i+size])
		i += size
	}
	return "", "", errors.New("no closing quote")
}

func TestParserRefuses(t *testing.T) {
	const good = `<109>1 2026-01-02T03:04:05.000006Z host prog 1 event [valise@32473 a="b\]\"\\"][meta sequenceId="1"] event`
	if _, err := parse(good); err != nil {
		t.Fatal(err)
	}
	for old, replacement := range map[string]string{
		"<109>": "<192>", ">1 ": ">2 ", "05.000006Z": "05.0000061Z", " host ": "  ", `\]`: `]`, `\\"]`: `"`, `a="b`: "a=\"b\n", `[meta`: `[valise@32473`, `] event`: `]event`,
	} {
		if _, err := parse(strings.Replace(good, old, replacement, 1)); err == nil {
			t.Errorf("%q for %q was taken", replacement, old)
		}
	}
}

// Whatever an event says becomes one message that a strict parser takes, with the
// values that it had.
func FuzzFormat(f *testing.F) {
	f.Add("connection_refused", "revoked", "remote", "192.0.2.1:1", uint32(1))
	f.Add("enrollment refused", "", "a=b]\"", "x\" bad=\"1\"] [evil@1 y=\"", uint32(7))
	f.Add("", "\n<13>1 - - - - -", "", "line\nbreak\x00\x7f\u2028\xff\\", uint32(0))
	f.Add(strings.Repeat("é", 300), "r", strings.Repeat("n", 99), strings.Repeat("\"]\\é", 2000), uint32(2147483647))
	h := header{host: "gw 1", program: "valise-gatewayd", process: "77", id: "valise@32473"}
	f.Fuzz(func(t *testing.T, event, reason, key, value string, sequence uint32) {
		m := Message{Time: time.Unix(1700000000, 123456789), Severity: Notice, Event: event, Reason: reason}
		for range 60 {
			m.Params = append(m.Params, Param{key, value})
		}
		text := string(h.format(m, sequence))
		if len(text) > maxMessage {
			t.Fatalf("%d bytes", len(text))
		}
		p, err := parse(text)
		if err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		if p.priority != 109 || p.host != "gw_1" || len(p.elements) != 2 || p.params["meta"]["sequenceId"] != fmt.Sprint(sequence) {
			t.Fatalf("%+v", p)
		}
	})
}
