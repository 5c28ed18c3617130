// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A SoftTPM is a TPM 2.0 in software (swtpm), with endorsement keys that a maker of
// its own certified: as a real TPM in everything but where its secrets are.
type SoftTPM struct {
	Path    string // its socket
	PIN     string // what tests give to keys in it
	PINFile string
	Roots   []byte // PEM: the maker's root and intermediate

	dir string // the maker's
}

// URI names a key in the TPM, or the TPM alone for "".
func (s *SoftTPM) URI(ref string) string {
	return "tpm:" + ref + "?path=" + url.QueryEscape(s.Path) + "&pin-source=" + url.QueryEscape(s.PINFile)
}

// TPM makes and starts a TPM, under a maker that no other test has.
func TPM(t testing.TB) *SoftTPM {
	t.Helper()
	Need(t, "swtpm", "swtpm")
	Need(t, "swtpm_setup", "swtpm-tools")
	dir := ShortDir(t)
	conf := fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/key.pem\nissuercert = %[1]s/issuer.pem\ncertserial = %[1]s/serial\n", dir)
	options := "--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n"
	setup := fmt.Sprintf("create_certs_tool = %[2]s\ncreate_certs_tool_config = %[1]s/localca.conf\ncreate_certs_tool_options = %[1]s/options\n", dir, Need(t, "swtpm_localca", "swtpm-tools"))
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "localca.conf"), []byte(conf), 0o600),
		os.WriteFile(filepath.Join(dir, "options"), []byte(options), 0o600),
		os.WriteFile(filepath.Join(dir, "setup.conf"), []byte(setup), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return (&SoftTPM{dir: dir}).Another(t)
}

// Another makes and starts one more TPM of the same maker.
func (s *SoftTPM) Another(t testing.TB) *SoftTPM {
	t.Helper()
	dir := ShortDir(t)
	fresh := &SoftTPM{Path: filepath.Join(dir, "tpm"), PIN: "482913", PINFile: filepath.Join(dir, "pin"), dir: s.dir}
	state := filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(state, 0o700), os.WriteFile(fresh.PINFile, []byte(fresh.PIN+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(Need(t, "swtpm_setup", "swtpm-tools"), "--tpm2", "--tpmstate", state, "--create-ek-cert", "--ecc",
		"--config", filepath.Join(s.dir, "setup.conf"))
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+s.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("testenv: make a TPM: %v\n%s", err, out)
	}
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuer.pem"} {
		data, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fresh.Roots = append(fresh.Roots, data...)
	}
	fresh.start(t, state)
	return fresh
}

// start runs the TPM until the end of the test.
func (s *SoftTPM) start(t testing.TB, state string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(Need(t, "swtpm", "swtpm"), "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+s.Path, "--flags", "not-need-init,startup-clear")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan struct{})
	if err := startLocked(cmd, func(error) {}, done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("unix", s.Path)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-done:
			t.Fatalf("testenv: swtpm ended at once\n%s", log.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("testenv: swtpm does not answer: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
