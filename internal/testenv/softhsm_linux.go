// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/internal/p11relay"
)

// A Token is a SoftHSM token made for one test.
type Token struct {
	Label   string
	PIN     string
	PINFile string // holds the PIN; only its owner can read it
	SOPIN   string
	Module  string // PKCS#11 module to load
	Dir     string
	env     []string
}

// Env is what a command needs in its environment to see the token. The test
// process itself has it already.
func (k *Token) Env() []string { return k.env }

// URI is the token's RFC 7512 URI without object and PIN. Attributes such as
// "object=ca" may follow: they stand in the path, before the query.
func (k *Token) URI(attributes ...string) string {
	path := append([]string{"token=" + url.PathEscape(k.Label)}, attributes...)
	return "pkcs11:" + strings.Join(path, ";") + "?module-path=" + k.Module
}

const softHSM = "/usr/lib*/softhsm/libsofthsm2.so"

// SoftHSM makes a token of its own, under its own configuration, and sets
// SOFTHSM2_CONF for this process until the end of the test. Its label is
// random, so that no test can take another one's token for its own.
func SoftHSM(t testing.TB) *Token {
	t.Helper()
	module := Need(t, softHSM, "softhsm2")
	util := Need(t, "softhsm2-util", "softhsm2")
	dir := ShortDir(t)
	k := &Token{
		Label: "test-" + strings.ToLower(rand.Text()[:8]), PIN: "734519", SOPIN: "98461537",
		Module: module, Dir: dir, PINFile: filepath.Join(dir, "pin"),
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	tokens := filepath.Join(dir, "tokens")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	if err := errors.Join(
		os.Mkdir(tokens, 0o700),
		os.WriteFile(conf, []byte(text), 0o600),
		os.WriteFile(k.PINFile, []byte(k.PIN+"\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	k.env = []string{"SOFTHSM2_CONF=" + conf}
	cmd := exec.Command(util, "--init-token", "--free", "--label", k.Label, "--pin", k.PIN, "--so-pin", k.SOPIN)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("testenv: initialize token: %v\n%s", err, out)
	}
	return k
}

// A Server is a SoftHSM token behind p11-kit's server: an HSM on a network
// that can be killed and started again. Its Module is p11-kit's client, behind
// package p11relay.
type Server struct {
	Token
	Backing Token // the same token without the server in between

	program, socket string
	provider        string // what the server loads
	cmd             *exec.Cmd
	done            chan struct{}
}

// SoftHSMServer starts a token behind a server, which is stopped at the end of
// the test, and sets P11_KIT_SERVER_ADDRESS for this process.
func SoftHSMServer(t testing.TB) *Server {
	t.Helper()
	program := Need(t, "/usr/libexec/p11-kit/p11-kit-server", "p11-kit")
	client := Need(t, "/usr/lib*/*/pkcs11/p11-kit-client.so", "p11-kit-modules")
	backing := SoftHSM(t)
	s := &Server{Token: *backing, Backing: *backing, program: program}
	var err error
	if s.provider, err = p11relay.Build(t.Context(), backing.Dir, backing.Module, p11relay.Server); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	if s.Module, err = p11relay.Build(t.Context(), backing.Dir, client, p11relay.Client); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	s.socket = filepath.Join(backing.Dir, "hsm")
	address := "unix:path=" + s.socket
	t.Setenv("P11_KIT_SERVER_ADDRESS", address)
	s.env = append(s.env, "P11_KIT_SERVER_ADDRESS="+address)
	s.Start(t)
	t.Cleanup(s.kill)
	return s
}

// Start starts the server, again after Kill.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if s.cmd != nil {
		t.Fatal("testenv: the server runs already")
	}
	if err := os.Remove(s.socket); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	cmd := exec.Command(s.program, "--foreground", "--name", s.socket,
		"--provider", s.provider, "pkcs11:token="+url.PathEscape(s.Label))
	cmd.Env = append(os.Environ(), s.Backing.env...)
	// Its children die with its group, and it dies with this process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.cmd, s.done = cmd, make(chan struct{})
	if err := startLocked(cmd, func(error) {}, s.done); err != nil {
		t.Fatal(err)
	}
	s.await(t)
}

// await returns when the server accepts connections.
func (s *Server) await(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-s.done:
			t.Fatal("testenv: p11-kit server ended at once")
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("testenv: p11-kit server does not answer: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Kill ends the server and the processes that serve its connections with
// SIGKILL, as a power failure would.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		t.Fatal("testenv: the server does not run")
	}
	s.kill()
}

func (s *Server) kill() {
	if s.cmd == nil {
		return
	}
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
	s.cmd = nil
}
