// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"valise/internal/syslog"
)

// An Audit is the stream of who was let in and who was refused, one JSON object a
// line: time, event, and the attributes of the event; a refusal has a reason, which
// is a snake_case code that does not change between versions.
//
//	{"time":"…","event":"enrollment refused","reason":"invitation_used","remote":"…"}
//
// The file is the stream that nothing is missing from. OpenAuditWith adds a copy for a
// collector, which may lose lines where the file does not, and says so in the file.
type Audit struct {
	path string // empty: a stream that is not reopened

	mu   sync.RWMutex
	out  io.Writer // guarded by mu
	file *os.File  // guarded by mu; nil: out belongs to somebody else

	handler slog.Handler // writes to the Audit itself
	copy    *syslog.Sender
	lines   atomic.Uint64
	errors  atomic.Uint64
	failing atomic.Pointer[error] // how the last line ended, if it failed
}

// OpenAudit opens the file for appending and creates it with mode 0600 if needed.
// Each event is one write, so several processes may share the file.
func OpenAudit(path string) (*Audit, error) {
	if path == "" {
		return nil, errors.New("audit: no file is configured: set audit = \"FILE\"")
	}
	f, err := openAudit(path)
	if err != nil {
		return nil, err
	}
	a := NewAudit(f)
	a.path, a.file = path, f
	return a, nil
}

func openAudit(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		_ = f.Close()
		return nil, fmt.Errorf("audit: %s is open to other users: chmod 600 it", path)
	}
	return f, nil
}

// OpenAuditWith is OpenAudit with a copy for a collector.
func OpenAuditWith(path string, c Syslog, program string, log *slog.Logger) (*Audit, error) {
	a, err := OpenAudit(path)
	if err != nil {
		return nil, err
	}
	if err := a.forward(c, program, log); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// NewAudit writes events to w, one call of Write each. The caller keeps w.
func NewAudit(w io.Writer) *Audit {
	a := &Audit{out: w}
	a.handler = slog.NewJSONHandler(stream{a}, &slog.HandlerOptions{ReplaceAttr: auditAttr})
	return a
}

// stream is where lines go at the moment.
type stream struct{ a *Audit }

// Write implements io.Writer.
func (s stream) Write(line []byte) (int, error) {
	s.a.mu.RLock()
	defer s.a.mu.RUnlock()
	return s.a.out.Write(line)
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
// refusals may ignore it, because they happen anyway. The collector's copy is sent also
// if the file cannot be written: it is then the only one.
func (a *Audit) Event(ctx context.Context, event string, attrs ...slog.Attr) error {
	r := slog.NewRecord(time.Now(), slog.LevelInfo, event, 0)
	r.AddAttrs(attrs...)
	err := a.handler.Handle(ctx, r)
	if a.copy != nil {
		a.copy.Send(message(r.Time, event, attrs))
	}
	if err != nil {
		err = fmt.Errorf("audit: %w", err)
		a.errors.Add(1)
		a.failing.Store(&err)
		return err
	}
	a.lines.Add(1)
	if a.failing.Load() != nil {
		a.failing.Store(nil)
	}
	return nil
}

// Refused writes one line with a reason code.
func (a *Audit) Refused(ctx context.Context, event, reason string, attrs ...slog.Attr) error {
	return a.Event(ctx, event, append([]slog.Attr{slog.String("reason", reason)}, attrs...)...)
}

// Check fails while the file cannot be written.
func (a *Audit) Check(context.Context) error {
	if err := a.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// Reopen opens the file anew under its name, after somebody moved the old one away
// (logrotate). If that fails, lines go on into the old one.
func (a *Audit) Reopen() error {
	if a.path == "" {
		return nil
	}
	f, err := openAudit(a.path)
	if err != nil {
		return err
	}
	a.mu.Lock()
	old := a.file
	a.out, a.file = f, f
	a.mu.Unlock()
	return old.Close()
}

// Close sends what waits for the collector, for a moment, and closes the file that
// OpenAudit opened.
func (a *Audit) Close() error {
	if a.copy != nil {
		ctx, cancel := context.WithTimeout(context.Background(), copyDrain)
		defer cancel()
		_ = a.copy.Close(ctx) // what it could not send, Lost has said
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}

// copyDrain is how long the end of a daemon may wait for the collector.
const copyDrain = 5 * time.Second

// A Syslog is the part of a configuration that says where a copy of the audit stream
// goes (RFC 5424). An empty Server: nowhere.
type Syslog struct {
	Server     string `toml:"server"` // unix:///dev/log, tcp://HOST:PORT or tls://HOST:PORT
	Roots      string `toml:"roots"`
	Enterprise uint32 `toml:"enterprise"`
}

// Paths are the fields that name files.
func (c *Syslog) Paths() []*string { return []*string{&c.Roots} }

// Check says whether it makes sense, without asking anybody.
func (c *Syslog) Check(program string) error {
	if c.Server == "" {
		if *c != (Syslog{}) {
			return errors.New("syslog: server must be set")
		}
		return nil
	}
	config := c.Config(program)
	return config.Check()
}

// Config is that of the sender.
func (c *Syslog) Config(program string) syslog.Config {
	return syslog.Config{
		Server: c.Server, Roots: c.Roots, Enterprise: c.Enterprise, Program: program,
	}
}

// forward sends a copy of each line to a collector. It is called before the first event.
func (a *Audit) forward(c Syslog, program string, log *slog.Logger) (err error) {
	if c.Server == "" {
		return nil
	}
	config := c.Config(program)
	config.Lost = func(n uint64, ended bool, why error) {
		// Into the file alone: the stream says it itself when it can.
		r := slog.NewRecord(time.Now(), slog.LevelInfo, "syslog_lost", 0)
		r.AddAttrs(slog.Uint64("lost", n), slog.Bool("ended", ended))
		if why != nil {
			r.AddAttrs(slog.String("error", why.Error()))
		}
		if err := a.handler.Handle(context.Background(), r); err != nil {
			log.Error("the audit stream cannot be written", "event", "syslog_lost", "error", err)
		}
		log.Warn("the collector of the audit stream misses lines, which are in the file", "lost", n, "ended", ended, "error", fmt.Sprint(why))
	}
	a.copy, err = syslog.Open(config)
	return err
}

// Metrics registers what an operator watches of the stream.
func (a *Audit) Metrics(r prometheus.Registerer) {
	r.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "valise_audit_lines_total", Help: "Lines written to the audit file."}, func() float64 { return float64(a.lines.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "valise_audit_errors_total", Help: "Lines of the audit stream that could not be written to the file."}, func() float64 { return float64(a.errors.Load()) }),
	)
	if a.copy != nil {
		a.copy.Metrics(r)
	}
}

// message is an event for the collector.
func message(at time.Time, event string, attrs []slog.Attr) syslog.Message {
	m := syslog.Message{Time: at, Severity: syslog.Info, Event: event}
	for _, attr := range attrs {
		if attr.Key == "reason" && m.Reason == "" {
			m.Reason, m.Severity = attr.Value.String(), syslog.Notice
			continue
		}
		flatten(&m, attr.Key, attr.Value, 0)
	}
	if event == "alarm" || event == "device_held" {
		m.Severity = syslog.Warning
	}
	return m
}

// maxDepth bounds groups within groups, which no event of ours has.
const maxDepth = 4

// flatten makes names like group.name of groups.
func flatten(m *syslog.Message, name string, v slog.Value, depth int) {
	switch v = v.Resolve(); {
	case v.Kind() == slog.KindGroup && depth < maxDepth:
		for _, attr := range v.Group() {
			flatten(m, name+"."+attr.Key, attr.Value, depth+1)
		}
	case v.Kind() == slog.KindTime:
		m.Params = append(m.Params, syslog.Param{Name: name, Value: v.Time().UTC().Format(time.RFC3339Nano)})
	case v.Kind() == slog.KindAny:
		text := fmt.Sprint(v.Any())
		if _, failed := v.Any().(error); !failed {
			if data, err := json.Marshal(v.Any()); err == nil {
				text = string(data)
			}
		}
		m.Params = append(m.Params, syslog.Param{Name: name, Value: text})
	default:
		m.Params = append(m.Params, syslog.Param{Name: name, Value: v.String()})
	}
}
