// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// NewLog returns a log of JSON lines. The level is one of debug, info, warn, error;
// empty means info, and so does anything else (LoadTOML's Level refuses it earlier).
func NewLog(w io.Writer, level Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level.Level}))
}

// A Level is a log level in a configuration file.
type Level struct{ slog.Level }

// UnmarshalText accepts debug, info, warn and error.
func (l *Level) UnmarshalText(text []byte) error {
	switch string(text) {
	case "debug", "info", "warn", "error":
		return l.Level.UnmarshalText(text)
	}
	return fmt.Errorf("log level %q is none of debug, info, warn, error", text)
}

// An Audit is the stream of who was let in and who was refused, one JSON object a
// line: time, event, and the attributes of the event; a refusal has a reason, which
// is a snake_case code that does not change between versions.
//
//	{"time":"…","event":"enrollment refused","reason":"invitation_used","remote":"…"}
type Audit struct {
	handler slog.Handler
	close   func() error
}

// OpenAudit opens the file for appending and creates it with mode 0600 if needed.
// Each event is one write, so several processes may share the file.
func OpenAudit(path string) (*Audit, error) {
	if path == "" {
		return nil, errors.New("audit: no file is configured: set audit = \"FILE\"")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		_ = f.Close()
		return nil, fmt.Errorf("audit: %s is open to other users: chmod 600 it", path)
	}
	a := NewAudit(f)
	a.close = f.Close
	return a, nil
}

// NewAudit writes events to w, one call of Write each. The caller keeps w.
func NewAudit(w io.Writer) *Audit {
	return &Audit{
		handler: slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: auditAttr}),
		close:   func() error { return nil },
	}
}

func auditAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		return slog.Attr{}
	case slog.MessageKey:
		a.Key = "event"
	case slog.TimeKey:
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return a
}

// Event writes one line. Who must not act without a record returns the error;
// refusals may ignore it, because they happen anyway.
func (a *Audit) Event(ctx context.Context, event string, attrs ...slog.Attr) error {
	r := slog.NewRecord(time.Now(), slog.LevelInfo, event, 0)
	r.AddAttrs(attrs...)
	if err := a.handler.Handle(ctx, r); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// Refused writes one line with a reason code.
func (a *Audit) Refused(ctx context.Context, event, reason string, attrs ...slog.Attr) error {
	return a.Event(ctx, event, append([]slog.Attr{slog.String("reason", reason)}, attrs...)...)
}

// Close closes the file that OpenAudit opened.
func (a *Audit) Close() error { return a.close() }
