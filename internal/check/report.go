// SPDX-License-Identifier: Apache-2.0

// Package check finds out whether a daemon of Valise can do its work on this machine,
// before it is started or beside it while it runs: what the commands valise-gatewayd
// check and valise-enrolld check have in common.
//
// A [Report] comes first; each function of this package looks at one thing and adds
// lines to it:
//
//	r := new(check.Report)
//	check.Disk(r, "data directory", cfg.Data)
//	check.Sign(r, "tls key", key, certificate.Leaf)
//	err := r.Write(os.Stdout, asJSON) // ErrFailed, if a line says FAIL
//
// A line is ok, a warning (the daemon works, and somebody should look), or a failure
// (it will not start, or not keep what it promises), with a reason code that does not
// change between versions and a sentence on what to do.
//
// What is looked at is the real thing, never the configuration's word for it: bytes are
// synced to the disk, the key signs and the certificate's public key verifies, the
// kernel is asked for the buffer and then what it gave. Never add a check that reports
// ok for what it did not try, and never one that changes what it looks at.
package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// A Result is how one check ended.
type Result string

// The results.
const (
	OK   Result = "ok"
	Warn Result = "warn"
	Fail Result = "FAIL"
)

// A Line is what one check found.
type Line struct {
	Check  string `json:"check"`  // what was looked at: "database", "clock"
	Result Result `json:"result"` // ok, warn, FAIL
	Found  string `json:"found"`
	Reason string `json:"reason,omitempty"` // snake_case; of what is not ok
	Do     string `json:"do,omitempty"`     // the same
}

// A Report gathers lines. Its zero value is empty; its methods may be called by any
// goroutine.
type Report struct {
	mu    sync.Mutex
	lines []Line // guarded by mu
}

// ErrFailed says that at least one line says FAIL.
var ErrFailed = errors.New("not everything is as it has to be: see the lines that say FAIL")

// OK adds a line about what is as it should be.
func (r *Report) OK(check, found string, args ...any) {
	r.add(Line{Check: check, Result: OK, Found: fmt.Sprintf(found, args...)})
}

// Warn adds a line about what somebody should look at.
func (r *Report) Warn(check, reason, do, found string, args ...any) {
	r.add(Line{Check: check, Result: Warn, Reason: reason, Do: do, Found: fmt.Sprintf(found, args...)})
}

// Fail adds a line about what keeps the daemon from its work.
func (r *Report) Fail(check, reason, do, found string, args ...any) {
	r.add(Line{Check: check, Result: Fail, Reason: reason, Do: do, Found: fmt.Sprintf(found, args...)})
}

func (r *Report) add(l Line) {
	// An error of somebody else's may have several lines.
	l.Found = strings.Join(strings.FieldsFunc(l.Found, func(c rune) bool { return c == '\n' || c == '\r' }), "; ")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
}

// Lines are those that were added, in their order.
func (r *Report) Lines() []Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Line(nil), r.lines...)
}

// summary is what Write says with asJSON.
type summary struct {
	Lines []Line `json:"lines"`
	OK    int    `json:"ok"`
	Warn  int    `json:"warn"`
	Fail  int    `json:"fail"`
}

// Write prints the report, and returns ErrFailed if a line says FAIL.
func (r *Report) Write(w io.Writer, asJSON bool) error {
	s := summary{Lines: r.Lines()}
	for _, l := range s.Lines {
		switch l.Result {
		case OK:
			s.OK++
		case Warn:
			s.Warn++
		case Fail:
			s.Fail++
		}
	}
	var err error
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(s)
	} else {
		err = s.text(w)
	}
	if err == nil && s.Fail > 0 {
		err = ErrFailed
	}
	return err
}

func (s *summary) text(w io.Writer) error {
	var b strings.Builder
	for _, l := range s.Lines {
		fmt.Fprintf(&b, "%-5s %-14s %s", l.Result, l.Check, l.Found)
		if l.Reason != "" {
			fmt.Fprintf(&b, " [%s]", l.Reason)
		}
		b.WriteByte('\n')
		if l.Do != "" {
			fmt.Fprintf(&b, "      %-14s -> %s\n", "", l.Do)
		}
	}
	fmt.Fprintf(&b, "%d ok, %d to look at, %d FAIL\n", s.OK, s.Warn, s.Fail)
	_, err := io.WriteString(w, b.String())
	return err
}
