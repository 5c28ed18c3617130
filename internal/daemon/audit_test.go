// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/internal/syslog"
)

// After somebody moved the file away, lines go into a new one; one that must not be
// opened leaves the old one in use.
func TestAuditIsReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	a, err := OpenAudit(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	event := func(name string) {
		t.Helper()
		if err := a.Event(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	event("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	event("two")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.Reopen(); err == nil {
		t.Error("a file that others can read was taken")
	}
	event("three")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Reopen(); err != nil {
		t.Fatal(err)
	}
	event("four")
	for file, want := range map[string]string{path + ".1": "one two three", path: "four"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range bytes.Lines(data) {
			var e struct{ Event string }
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			names = append(names, e.Event)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", filepath.Base(file), got, want)
		}
	}
}

// fillable is a file on a disk that is full.
type fillable struct{ full bool }

func (f *fillable) Write(p []byte) (int, error) {
	if f.full {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

// A file that cannot be written is an error of the event and of the health page, until
// it can again; the collector gets its copy all the same.
func TestAuditFailureAndCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	socket, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	disk := &fillable{full: true}
	a := NewAudit(disk)
	if err := a.forward(Syslog{Server: "unix://" + path}, "valise-gatewayd", quiet()); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	refuse := func() error {
		return a.Refused(t.Context(), "request_refused", "rate", slog.String("device", "aa"), slog.Group("peer", slog.Int("port", 7)), slog.Time("at", time.Unix(0, 0)))
	}
	if refuse() == nil || a.Check(t.Context()) == nil {
		t.Error("a line was lost in silence")
	}
	disk.full = false
	if err := errors.Join(refuse(), a.Check(t.Context())); err != nil {
		t.Error(err)
	}
	if a.errors.Load() != 1 || a.lines.Load() != 1 {
		t.Errorf("%d errors, %d lines", a.errors.Load(), a.lines.Load())
	}
	buf := make([]byte, 8192)
	for range 2 {
		_ = socket.SetReadDeadline(time.Now().Add(time.Minute))
		n, _, err := socket.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"<109>1 ", ` request_refused [valise@32473 event="request_refused" reason="rate" device="aa" peer.port="7" at="1970-01-01T00:00:00Z"]`} {
			if !strings.Contains(string(buf[:n]), want) {
				t.Errorf("%q is not in %q", want, buf[:n])
			}
		}
	}
}

func TestSyslogSeverity(t *testing.T) {
	for event, want := range map[string]syslog.Severity{"alarm": syslog.Warning, "tunnel_opened": syslog.Info} {
		if got := message(time.Now(), event, nil).Severity; got != want {
			t.Errorf("%s: %d", event, got)
		}
	}
	if err := (&Syslog{Roots: "x"}).Check("p"); err == nil {
		t.Error("a section without a server was accepted")
	}
	if err := (&Syslog{}).Check("p"); err != nil {
		t.Error(err)
	}
}
