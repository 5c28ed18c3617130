// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/internal/stage"
)

// checked runs a daemon's check and returns result by reason of what is not ok, and how
// many lines are.
func checked(t *testing.T, w *world, program, config string, env []string) (bad map[string]string, ok int) {
	t.Helper()
	out, err := stage.Output(w.ctx, env, filepath.Join(w.Bin, program), "check", "--json", "--config", config)
	var report struct {
		Lines []struct{ Check, Result, Found, Reason, Do string }
		Fail  int
	}
	if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil {
		t.Fatalf("%v: %v\n%s", err, jsonErr, out)
	}
	if (report.Fail > 0) != (err != nil) {
		t.Errorf("%d FAIL, and it ended with %v", report.Fail, err)
	}
	bad = make(map[string]string)
	for _, l := range report.Lines {
		if l.Result == "ok" {
			ok++
			continue
		}
		if bad[l.Reason] = l.Result; l.Do == "" {
			t.Errorf("%s: it does not say what to do", l.Reason)
		}
	}
	return bad, ok
}

// ofMachine are findings about this machine, whatever it is: its clock's state, its
// buffers, its disk.
var ofMachine = []string{"clock_unsynchronized", "clock_alone", "clock_unknown", "buffers_small", "few_files", "disk_slow", "disk_low"}

// A fault is put in and taken out again.
type fault struct {
	name     string
	old, new string // in the configuration; the rest is left alone
	do       func() (undo func(), err error)
	want, as string
}

// chmod gives a file another mode for a while.
func chmod(path string, mode os.FileMode) func() (func(), error) {
	return func() (func(), error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		return func() { _ = os.Chmod(path, info.Mode()) }, os.Chmod(path, mode)
	}
}

// without moves a file away for a while.
func without(path string) func() (func(), error) {
	return func() (func(), error) {
		return func() { _ = os.Rename(path+".away", path) }, os.Rename(path, path+".away")
	}
}

// holding puts other bytes into a file for a while.
func holding(path, text string) func() (func(), error) {
	return func() (func(), error) {
		was, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return func() { _ = os.WriteFile(path, was, 0o600) }, os.WriteFile(path, []byte(text), 0o600)
	}
}

// find puts each fault into a daemon's surroundings, one at a time.
func (f *fault) find(t *testing.T, w *world, program, config string, env []string) {
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), f.old, f.new, 1)
	if f.old != "" && changed == string(text) {
		t.Fatalf("%s: %q is not in the configuration", f.name, f.old)
	}
	path := filepath.Join(filepath.Dir(config), "checked.toml")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if f.do != nil {
		undo, err := f.do()
		if undo != nil {
			defer undo()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	bad, ok := checked(t, w, program, path, env)
	if f.want == "" {
		for _, reason := range ofMachine {
			delete(bad, reason)
		}
		if len(bad) != 0 || ok < 12 {
			t.Errorf("%s: %d lines are ok, and not: %v", f.name, ok, bad)
		}
		return
	}
	if bad[f.want] != f.as {
		t.Errorf("%s: want %s %s, got %v", f.name, f.as, f.want, bad)
	}
}

// The check commands of both daemons find each fault of what they stand on, and none
// where there is none: beside the running daemon, and without it.
func TestCheckCommands(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t, stage.Config{})
	t.Run("metrics", func(t *testing.T) { checkMetrics(t, w) })
	g, a := w.gateway, w.authority
	dir, data := filepath.Dir(g.Config()), filepath.Dir(g.Database)
	pin := filepath.Join(w.Dir, "pin")
	otherPort := func() (func(), error) { // somebody else has the port
		g.Process().Kill()
		_, port, _ := net.SplitHostPort(g.Address)
		udp, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		if err != nil {
			return nil, err
		}
		return func() { udp.Close() }, nil
	}
	future := func(path string) func() (func(), error) {
		return func() (func(), error) {
			now := time.Now()
			return func() { _ = os.Chtimes(path, now, now) }, os.Chtimes(path, now.Add(time.Hour), now.Add(time.Hour))
		}
	}
	rootOf := func() string {
		other, err := w.RootPEM(w.ctx, w.root)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, f := range []fault{
		{name: "control"},
		{name: "unknown key", old: "name =", new: "burts = 1\nname =", want: "config_unknown_key", as: "FAIL"},
		{name: "bad value", old: `domain = "`, new: `domain = "UPPER_`, want: "config_invalid", as: "FAIL"},
		{name: "writable", do: chmod(dir, 0o777), want: "config_writable", as: "FAIL"},
		{name: "open PIN", do: chmod(pin, 0o644), want: "secret_open", as: "FAIL"},
		{name: "wrong PIN", do: holding(pin, "000000\n"), want: "pin_wrong", as: "FAIL"},
		{name: "open data", do: chmod(data, 0o770), want: "directory_writable", as: "FAIL"},
		{name: "open audit", do: chmod(g.Audit, 0o644), want: "audit_open", as: "FAIL"},
		{name: "clock", do: future(g.Audit), want: "clock_behind", as: "FAIL"},
		{name: "no module", old: g.Token.Module, new: "/nonexistent/pkcs11.so", want: "module_missing", as: "FAIL"},
		{name: "no token", old: "token=gateway", new: "token=gatewax", want: "token_missing", as: "FAIL"},
		{name: "no key", old: "object=tls", new: "object=tlz", want: "key_missing", as: "FAIL"},
		{name: "other root", do: holding(filepath.Join(dir, "gateway.pem"), rootOf()), want: "certificate_refused", as: "FAIL"},
		{name: "no certificate", do: without(filepath.Join(dir, "gateway.pem")), want: "certificate_unreadable", as: "FAIL"},
		{name: "other name", old: `name = "localhost"`, new: `name = "gateway.example"`, want: "certificate_refused", as: "FAIL"},
		{name: "authority's name", old: `url = "https://localhost:`, new: `url = "https://127.0.0.1:`, want: "authority_certificate", as: "FAIL"},
		{name: "open files", old: "[authority]", new: "[limits]\nconnections = 2000000000\n[authority]", want: "few_files", as: "warn"},
		{name: "collector", old: "[authority]", new: "[syslog]\nserver = \"unix:///nonexistent\"\n[authority]", want: "syslog_unreachable", as: "warn"},
		{name: "database", old: "admin =", new: "database = \"host=/nonexistent dbname=none\"\nadmin =", want: "database_unreachable", as: "FAIL"},
	} {
		f.find(t, w, "valise-gatewayd", g.Config(), g.Token.Env)
	}
	for _, f := range []fault{
		{name: "control"},
		{name: "unknown key", old: "domain =", new: "domian = 1\ndomain =", want: "config_unknown_key", as: "FAIL"},
		{name: "open PIN", do: chmod(pin, 0o644), want: "secret_open", as: "FAIL"},
		{name: "no token", old: "token=authority", new: "token=authoritx", want: "token_missing", as: "FAIL"},
		{name: "no key", old: "[token]", new: "[token]\nbulletin-key = \"none\"", want: "key_missing", as: "FAIL"},
		{name: "other key", old: "[token]", new: "[token]\nbulletin-key = \"valise-issuer\"\nissuer-key = \"valise-bulletin\"", want: "key_not_certified", as: "FAIL"},
		{name: "no manifest", do: without(filepath.Join(filepath.Dir(a.Root), "manifest.jws")), want: "manifest_refused", as: "FAIL"},
		{name: "no database", do: without(filepath.Join(filepath.Dir(a.Root), "authority.db")), want: "database_missing", as: "FAIL"},
		{name: "newest checkpoint", do: future(filepath.Join(filepath.Dir(a.Root), "checkpoint")), want: "clock_behind", as: "FAIL"},
		{name: "audit", do: chmod(a.Audit, 0o660), want: "audit_open", as: "FAIL"},
	} {
		f.find(t, w, "valise-enrolld", a.Config(), a.Token.Env)
	}
	a.Process().Kill()
	for _, f := range []fault{
		{name: "authority away", want: "authority_unreachable", as: "warn"},
		{name: "port taken", do: otherPort, want: "port_taken", as: "FAIL"},
	} {
		f.find(t, w, "valise-gatewayd", g.Config(), g.Token.Env)
	}
	(&fault{name: "control, stopped"}).find(t, w, "valise-enrolld", a.Config(), a.Token.Env)
}
