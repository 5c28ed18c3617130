// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"valise/hsm"
)

const (
	softhsm   = "/usr/lib/softhsm/libsofthsm2.so"
	p11client = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
	testPIN   = "481516"
)

// need skips the test, or fails it where everything is demanded.
func need(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("VALISE_REQUIRE") == "all" {
		t.Fatalf("%s is missing: apt-get install %s", program, pkg)
	}
	t.Skipf("%s is missing: apt-get install %s", program, pkg)
}

// softHSM makes tokens with these labels in a SoftHSM of the test's own.
func softHSM(t testing.TB, labels ...string) {
	t.Helper()
	need(t, "softhsm2-util", "softhsm2")
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range labels {
		out, err := exec.Command("softhsm2-util", "--init-token", "--free",
			"--label", label, "--pin", testPIN, "--so-pin", "87654321").CombinedOutput()
		if err != nil {
			t.Fatalf("softhsm2-util: %v\n%s", err, out)
		}
	}
}

// A pinPad gives a PIN and counts how often it was asked.
type pinPad struct {
	pin   string
	asked atomic.Int32
	last  atomic.Pointer[hsm.PINRequest]
}

func (p *pinPad) enter(_ context.Context, r hsm.PINRequest) (string, error) {
	p.asked.Add(1)
	p.last.Store(&r)
	return p.pin, nil
}

func rightPIN(context.Context, hsm.PINRequest) (string, error) { return testPIN, nil }

// openSoft opens a token of softHSM's.
func openSoft(t testing.TB, label string) *Token {
	t.Helper()
	return openConfig(t, Config{Module: softhsm, Label: label, PIN: rightPIN})
}

func openConfig(t testing.TB, c Config) *Token {
	t.Helper()
	token, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return token
}

// A server is p11-kit's server in front of SoftHSM: an HSM that can be
// switched off.
type server struct {
	t      *testing.T
	socket string
	cmd    *exec.Cmd
}

func startServer(t *testing.T) *server {
	t.Helper()
	need(t, "p11-kit", "p11-kit")
	s := &server{t: t, socket: filepath.Join(t.TempDir(), "hsm")}
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+s.socket)
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("p11-kit", "server", "--foreground", "--name", s.socket, "--provider", softhsm, "pkcs11:")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	until(s.t, "p11-kit's socket", func() bool { _, err := os.Stat(s.socket); return err == nil })
}

// kill ends the server and its p11-kit-remote children, which are in its group.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
	_ = os.Remove(s.socket)
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(45 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}
