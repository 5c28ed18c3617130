// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestDecodeTOML(t *testing.T) {
	type config struct {
		Listen string
		Level  Level
		Drain  Duration
		Sub    struct {
			PinSource string `toml:"pin-source"`
		} `toml:"sub"`
		List []struct{ Name string } `toml:"list"`
	}
	const good = "listen = ':1'\nlevel = 'warn'\ndrain = '3s'\n\n[sub]\npin-source = 'x'\n[[list]]\nname = 'y'\n"
	var cfg config
	if err := DecodeTOML(good, &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Drain.Duration != 3*time.Second || cfg.Level.Level != slog.LevelWarn || cfg.Sub.PinSource != "x" {
		t.Errorf("got %+v", cfg)
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":      {"listen = ':1'\nlisten2 = ':1'\n", `line 2: unknown key "listen2"`},
		"unknown in table": {good + "nome = 'z'\n", `line 9: unknown key "list.nome"`},
		"unknown table":    {good + "[other]\n", `line 9: unknown key "other"`},
		"dotted":           {"sub.pin-source = 'x'\nsub.pin = 'x'\n", `line 2: unknown key "sub.pin"`},
		"wrong type":       {"\nlisten = 1\n", "line 2 (last key \"listen\"): "},
		"bad level":        {"level = 'loud'\n", "line 1: log level \"loud\" is none of"},
		"bad duration":     {"drain = '3'\n", "not a duration"},
		"negative":         {"drain = '-3s'\n", "not a duration"},
		"twice":            {"listen = 'a'\nlisten = 'b'\n", "line 2: "},
		"not toml":         {"listen", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := DecodeTOML(c.text, new(config)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoadTOMLNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(path, []byte("nope = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := LoadTOML(path, &struct{}{})
	if err == nil || !strings.Contains(err.Error(), path+`: line 1: unknown key "nope"`) {
		t.Errorf("got %v", err)
	}
	if err := LoadTOML(path+"x", &struct{}{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for i := range 2 { // the second opening must append
		a, err := OpenAudit(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Refused(t.Context(), "enrollment refused", "invitation_used", slog.Int("n", i)); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if got["event"] != "enrollment refused" || got["reason"] != "invitation_used" || got["n"] != float64(i) || got["time"] == nil || len(got) != 4 {
			t.Errorf("got %v", got)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAudit(path); err == nil {
		t.Error("opened an audit file that others read")
	}
	if _, err := OpenAudit(""); err == nil {
		t.Error("opened no file")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestAuditReportsFailure(t *testing.T) {
	if err := NewAudit(failing{}).Event(t.Context(), "issued"); err == nil {
		t.Error("the failed write was not reported")
	}
	var b bytes.Buffer
	if err := NewAudit(&b).Event(t.Context(), "issued"); err != nil || !strings.HasSuffix(b.String(), "}\n") {
		t.Errorf("control: %q, %v", b.String(), err)
	}
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Health
		h.Add("store", func(context.Context) error { return nil })
		if all := h.Check(t.Context()); len(all) != 1 || all["store"] != nil {
			t.Errorf("got %v", all)
		}
		h.Add("hsm", func(context.Context) error { return errors.New("gone") })
		stuck := make(chan struct{})
		defer close(stuck)
		h.Add("slow", func(context.Context) error { <-stuck; return nil })
		start := time.Now()
		all := h.Check(t.Context())
		if time.Since(start) != checkLimit {
			t.Errorf("took %v", time.Since(start))
		}
		if all["store"] != nil || all["hsm"] == nil || !errors.Is(all["slow"], context.DeadlineExceeded) {
			t.Errorf("got %v", all)
		}
		h.Drain()
		if all := h.Check(t.Context()); all["life"] == nil {
			t.Errorf("got %v", all)
		}
	})
}

// free returns a loopback address that was free a moment ago.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		res, err := http.Get(url)
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
}

// A signal lets the running request end, and only then the daemon.
func TestRunServesAndDrains(t *testing.T) {
	admin := free(t)
	d := New(Config{Admin: admin, Log: quiet()})
	var down atomic.Bool
	d.Health.Add("hsm", func(context.Context) error {
		if down.Load() {
			return errors.New("no token")
		}
		return nil
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inside, finish := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-finish
		fmt.Fprint(w, "done")
	})}
	workerEnded := make(chan struct{})
	worker := Part{Name: "worker", Serve: func(ctx context.Context) error {
		<-ctx.Done()
		close(workerEnded)
		return ctx.Err()
	}}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(t.Context(), HTTP("acme", srv, ln), worker) }()

	if code, body := get(t, "http://"+admin+"/healthz"); code != 200 || !strings.Contains(body, `"hsm":"ok"`) {
		t.Errorf("healthy: %d %s", code, body)
	}
	down.Store(true)
	if code, body := get(t, "http://"+admin+"/healthz"); code != 503 || !strings.Contains(body, "no token") {
		t.Errorf("unhealthy: %d %s", code, body)
	}
	if code, body := get(t, "http://"+admin+"/metrics"); code != 200 || !strings.Contains(body, `valise_health{check="hsm"} 0`) {
		t.Errorf("metrics: %d %s", code, body)
	}

	answer := make(chan string, 1)
	go func() { _, body := get(t, "http://"+ln.Addr().String()); answer <- body }()
	<-inside
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-workerEnded
	select {
	case err := <-ended:
		t.Fatalf("ended with a request running: %v", err)
	default:
	}
	close(finish)
	if body := <-answer; body != "done" {
		t.Errorf("got %q", body)
	}
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestRunEndsWhenAPartEnds(t *testing.T) {
	boom := errors.New("boom")
	for name, err := range map[string]error{"error": boom, "nothing": nil} {
		t.Run(name, func(t *testing.T) {
			d := New(Config{Log: quiet()})
			got := d.Run(t.Context(),
				Part{Name: "a", Serve: func(context.Context) error { return err }},
				Part{Name: "b", Serve: func(ctx context.Context) error { <-ctx.Done(); return nil }})
			want := err
			if want == nil {
				want = errStopped
			}
			if !errors.Is(got, want) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestAdminMustBeLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "localhost:0", "192.0.2.1:0", "127.0.0.1"} {
		if ln, err := listenLoopback(address); err == nil {
			_ = ln.Close()
			t.Errorf("%s was accepted", address)
		}
	}
	ln, err := listenLoopback("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
}
