// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main_test

import (
	"bufio"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/internal/testenv"
)

// A home is a folder with the program and cards in it.
type home struct {
	t   *testing.T
	dir string
}

func newHome(t *testing.T) home {
	t.Helper()
	testenv.Need(t, "pcscd", "pcscd")
	testenv.Need(t, "/usr/lib*/pcsc/drivers/serial/libifdvpcd.so", "vsmartcard-vpcd")
	h := home{t, testenv.ShortDir(t)}
	program, err := os.ReadFile(testenv.Build(t, "./cmd/valise-testcard", "CGO_ENABLED=0"))
	if err != nil {
		t.Fatal(err)
	}
	// Another user may have to run it.
	if err := errors.Join(os.WriteFile(h.path("valise-testcard"), program, 0o755), os.Chmod(h.dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h home) path(name string) string { return filepath.Join(h.dir, name) }

func (h home) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(h.t.Context(), h.path("valise-testcard"), args...)
	cmd.Dir = h.dir
	return cmd
}

// must runs a command that has to succeed and returns its output.
func (h home) must(args ...string) string {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// fails runs a command that has to fail, with this text.
func (h home) fails(text string, args ...string) {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), text) {
		h.t.Errorf("%v: %v, no %q in\n%s", args, err, text, out)
	}
}

// start starts a command that runs a reader and waits for its last line. The
// caller ends it.
func (h home) start(cmd *exec.Cmd) {
	h.t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		said = append(said, lines.Text())
		if strings.HasPrefix(lines.Text(), "PCSCLITE_CSOCK_NAME=") {
			return
		}
	}
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() == 3 && os.Getenv("VALISE_REQUIRE") == "" {
		h.t.Skip("namespaces are forbidden here: " + stderr.String())
	}
	h.t.Fatalf("reader is not ready: %v\n%s\n%s", err, strings.Join(said, "\n"), &stderr)
}

// status asks Yubico's tool which card it sees.
func (h home) status() string {
	h.t.Helper()
	cmd := exec.Command(testenv.Need(h.t, "yubico-piv-tool", "yubico-piv-tool"), "-a", "status")
	cmd.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+h.path("r/pcscd/pcscd.comm"))
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// sees waits for the tool's answer to hold the text, or not to hold it.
func (h home) sees(text string, want bool) {
	h.t.Helper()
	if out := h.status(); strings.Contains(out, text) != want {
		h.t.Errorf("%q is seen: %v\n%s", text, !want, out)
	}
}

// garbage sends what is no request; each has to be answered with an error.
func (h home) garbage(requests ...string) {
	h.t.Helper()
	for _, request := range requests {
		conn, err := net.Dial("unix", h.path("r/control"))
		if err != nil {
			h.t.Fatal(err)
		}
		conn.Write([]byte(request))
		conn.(*net.UnixConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.Contains(string(answer), `"error":`) {
			h.t.Errorf("%.20q is answered with %s", request, answer)
		}
	}
}

// gone waits until a file has been removed.
func (h home) gone(name string) {
	h.t.Helper()
	h.until(name+" to be removed", func() bool {
		_, err := os.Lstat(h.path(name))
		return errors.Is(err, fs.ErrNotExist)
	})
}

func (h home) until(what string, done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// processes counts the processes of this test's reader.
func (h home) processes() int {
	count := 0
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, _ := os.ReadFile(file)
		if strings.Contains(string(line), h.path("r")) {
			count++
		}
	}
	return count
}

// The commands of the manual, in its order.
func TestManual(t *testing.T) {
	h := newHome(t)
	if out := h.must("new", "--state", "alice.card", "--root", "root.pem", "--serial", "10000201"); !strings.HasPrefix(out, "virtual card 10000201") {
		t.Errorf("new says %q", out)
	}
	h.must("new", "--state", "bob.card", "--root", "root.pem", "--serial", "10000202", "--pin", "48151623", "--firmware", "5.7.4")
	h.fails("exists already", "new", "--state", "alice.card", "--root", "root.pem")
	h.fails("6 to 8 characters", "new", "--state", "carol.card", "--root", "root.pem", "--pin", "1")
	h.fails("not a version", "new", "--state", "carol.card", "--root", "root.pem", "--firmware", "5.x")
	root := h.must("root", "--root", "root.pem", "--pem")
	if block, rest := pem.Decode([]byte(root)); block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		t.Errorf("root says %q", root)
	}
	cmd := h.command("reader", "--dir", "r", "alice.card")
	h.start(cmd)
	h.sees("10000201", true)
	h.fails("another reader", "insert", "--dir", "r", "alice.card")
	h.must("eject", "--dir", "r", "10000201")
	h.sees("10000201", false)
	h.fails("not in this reader", "eject", "--dir", "r", "10000201")
	h.must("insert", "--dir", "r", "10000201")
	h.must("insert", "--dir", "r", "bob.card")
	h.fails("inserted already", "insert", "--dir", "r", "10000202")
	h.fails("not known here", "insert", "--dir", "r", "10000203")
	h.must("new", "--state", "carol.card", "--root", "root.pem")
	h.fails("both bays are taken", "insert", "--dir", "r", "carol.card")
	h.must("restart-pcscd", "--dir", "r")
	h.sees("10000201", true)
	if out := h.must("list", "--dir", "r"); !strings.Contains(out, "card 10000201: Yubico") || !strings.Contains(out, "card 10000202: Yubico") {
		t.Errorf("list says %q", out)
	}
	h.garbage("not JSON", `{"do":"explode"}`, `{"do":"list","more":1}`, strings.Repeat("[", 1<<15), "")
	h.must("list", "--dir", "r")
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("reader ends with %v", err)
	}
	h.gone("r/control")
	h.gone("r/pcscd/pcscd.comm")
	h.fails("no reader runs", "list", "--dir", "r")
}

func TestReaderRefuses(t *testing.T) {
	h := newHome(t)
	for _, name := range []string{"a", "b", "c"} {
		h.must("new", "--state", name, "--root", "root.pem")
	}
	h.fails("do not fit", "reader", "--dir", "r", "a", "b", "c")
	h.fails("no such file", "reader", "--dir", "r", "d")
	h.fails("use a shorter folder", "reader", "--dir", strings.Repeat("long", 25))
	if err := os.WriteFile(h.path("d"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.fails("card "+h.path("d"), "reader", "--dir", "r", "d")
}

// A reader ends with the process that started it, whatever that process died
// of, and takes pcscd with it.
func TestReaderEndsWithItsParent(t *testing.T) {
	h := newHome(t)
	h.must("new", "--state", "card", "--root", "root.pem", "--serial", "10000204")
	shell := exec.Command("sh", "-c", `"$0" reader --dir "$1" "$2" & wait`, h.path("valise-testcard"), h.path("r"), h.path("card"))
	h.start(shell)
	h.sees("10000204", true)
	if n := h.processes(); n < 3 { // shell, reader, inner half
		t.Fatalf("%d processes of the reader run", n)
	}
	shell.Process.Kill()
	shell.Wait()
	h.until("the reader to end", func() bool { return h.processes() == 0 })
	h.gone("r/control")
}

// Both halves die together even when neither can clean up, and the next
// reader starts in what they left.
func TestReaderAfterACrash(t *testing.T) {
	h := newHome(t)
	h.must("new", "--state", "card", "--root", "root.pem", "--serial", "10000205")
	cmd := h.command("reader", "--dir", "r", "card")
	h.start(cmd)
	cmd.Process.Kill()
	cmd.Wait()
	h.until("the inner half to end", func() bool { return h.processes() == 0 })
	h.sees("10000205", false)
	again := h.command("reader", "--dir", "r", "--rm", "card")
	h.start(again)
	h.sees("10000205", true)
	again.Process.Signal(syscall.SIGINT)
	if err := again.Wait(); err != nil {
		t.Errorf("reader ends with %v", err)
	}
	h.gone("r")
}

// TestReaderOutlivesItsParent is for demos that leave everything running.
func TestReaderOutlivesItsParent(t *testing.T) {
	h := newHome(t)
	h.must("new", "--state", "card", "--root", "root.pem", "--serial", "10000206")
	shell := exec.Command("sh", "-c", `"$0" reader --outlive-parent --dir "$1" "$2" & echo pid $! && wait`, h.path("valise-testcard"), h.path("r"), h.path("card"))
	stdout, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "PCSCLITE_CSOCK_NAME=") {
		fmt.Sscanf(lines.Text(), "pid %d", &pid)
	}
	shell.Process.Kill()
	shell.Wait()
	h.sees("10000206", true)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.gone("r/control")
	h.until("the reader to end", func() bool { return h.processes() == 0 })
}

// A plain user needs no more than user namespaces.
func TestReaderOfAPlainUser(t *testing.T) {
	h := newHome(t)
	credential := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		credential.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	create := h.command("new", "--state", "card", "--root", "root.pem", "--serial", "10000207")
	create.SysProcAttr = credential
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := h.command("reader", "--dir", "r", "card")
	cmd.SysProcAttr = credential
	h.start(cmd)
	h.sees("10000207", true)
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("reader ends with %v", err)
	}
}

// Where namespaces are forbidden, the reader says what is missing and ends
// with status 3. A user namespace that may have no mount namespaces in it
// plays the container that forbids them.
func TestReaderWithoutNamespaces(t *testing.T) {
	h := newHome(t)
	unshare := testenv.Need(t, "unshare", "util-linux")
	command := func(limit string) *exec.Cmd {
		return exec.Command(unshare, "--user", "--map-root-user", "sh", "-c",
			`echo "$2" > /proc/sys/user/max_mnt_namespaces && exec "$0" reader --dir "$1"`, h.path("valise-testcard"), h.path("r"), limit)
	}
	control := command("50")
	h.start(control)
	control.Process.Signal(syscall.SIGTERM)
	if err := control.Wait(); err != nil {
		t.Errorf("control: %v", err)
	}
	out, err := command("0").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 ||
		!strings.Contains(string(out), "namespaces are forbidden here") || !strings.Contains(string(out), "hint: ") {
		t.Errorf("%v\n%s", err, out)
	}
}
