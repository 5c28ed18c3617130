// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Severity is that of RFC 5424, Section 6.2.1.
type Severity int

// The severities that the audit stream has.
const (
	Warning Severity = 4 // somebody should look
	Notice  Severity = 5 // a refusal
	Info    Severity = 6
)

// audit is facility 13, "log audit".
const audit = 13

// A Param is one value with its name.
type Param struct{ Name, Value string }

// A Message is one event of the audit stream.
type Message struct {
	Time     time.Time
	Severity Severity
	Event    string
	Reason   string // empty: no refusal
	Params   []Param
}

// header is what all messages of a process have in common.
type header struct {
	host, program, process string
	id                     string // of the structured data: valise@NUMBER
}

// format writes a message as RFC 5424, Section 6, has it:
//
//	<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID [valise@N event="…" …][meta sequenceId="…"] event: reason
func (h *header) format(m Message, sequence uint32) []byte {
	var b strings.Builder
	b.Grow(512)
	b.WriteByte('<')
	b.WriteString(strconv.Itoa(audit*8 + int(m.Severity)))
	b.WriteString(">1 ")
	b.WriteString(m.Time.UTC().Format("2006-01-02T15:04:05.000000Z"))
	for _, field := range []struct {
		text string
		most int
	}{{h.host, 255}, {h.program, 48}, {h.process, 128}, {m.Event, 32}} {
		b.WriteByte(' ')
		b.WriteString(printable(field.text, field.most, ""))
	}
	b.WriteString(" [")
	b.WriteString(h.id)
	param(&b, "event", m.Event)
	if m.Reason != "" {
		param(&b, "reason", m.Reason)
	}
	tail := "][meta sequenceId=\"" + strconv.FormatUint(uint64(sequence), 10) + "\"] " + printable(m.Event, 32, "")
	if m.Reason != "" {
		tail += ": " + printable(m.Reason, 64, "")
	}
	left := 0
	for i, p := range m.Params {
		// What does not fit is counted, never cut in the middle of a name or an escape.
		if i >= maxParams || b.Len()+len(p.Name)+2*min(len(p.Value), maxValue)+len(tail)+64 > maxMessage {
			left++
			continue
		}
		param(&b, p.Name, p.Value)
	}
	if left > 0 {
		param(&b, "left_out", strconv.Itoa(left))
	}
	b.WriteString(tail)
	return []byte(b.String())
}

// printable is PRINTUSASCII of at most so many characters, without those of not; "-"
// where nothing is left.
func printable(text string, most int, not string) string {
	out := make([]byte, 0, min(len(text), most))
	for i := 0; i < len(text) && len(out) < most; i++ {
		c := text[i]
		if c <= ' ' || c > '~' || strings.IndexByte(not, c) >= 0 {
			c = '_'
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return "-"
	}
	return string(out)
}

// param writes one SD-PARAM (RFC 5424, Section 6.3.3): quote, backslash and closing
// bracket are escaped, and control characters are spelled out, because collectors
// that cut at line ends would read a second message in them.
func param(b *strings.Builder, name, value string) {
	b.WriteByte(' ')
	b.WriteString(printable(name, 32, `="]`))
	b.WriteString(`="`)
	cut := len(value) > maxValue
	if cut {
		value = value[:maxValue]
	}
	for len(value) > 0 {
		r, size := utf8.DecodeRuneInString(value)
		switch {
		case r == utf8.RuneError && size == 1:
			if len(value) >= utf8.UTFMax || !cut { // not the character that the cut went through
				b.WriteString("\uFFFD")
			}
		case r == '"' || r == '\\' || r == ']':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029:
			b.WriteString("<U+")
			b.WriteString(strings.ToUpper(strconv.FormatInt(int64(r)+0x10000, 16)[1:]))
			b.WriteByte('>')
		default:
			b.WriteRune(r)
		}
		value = value[size:]
	}
	if cut {
		b.WriteString("…")
	}
	b.WriteByte('"')
}
