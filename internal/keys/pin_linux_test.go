// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"valise/hsm"
)

func TestPINFromFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		write("good", " 123456\r\n", 0o600):                     nil,
		write("read only", "123456", 0o400):                     nil,
		write("group", "123456\n", 0o640):                       ErrPINFile,
		write("others", "123456\n", 0o604):                      ErrPINFile,
		write("group writes", "123456\n", 0o620):                ErrPINFile,
		write("empty", " \n", 0o600):                            ErrPINFile,
		write("huge", strings.Repeat("1", maxPINFile+1), 0o600): ErrPINFile,
		filepath.Join(dir, "missing"):                           os.ErrNotExist,
		dir:                                                     ErrPINFile,
		pipe:                                                    ErrPINFile,
	} {
		pin, err := PINFromFile(path)(t.Context(), hsm.PINRequest{})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", filepath.Base(path), err, want)
		}
		if err == nil && pin != "123456" {
			t.Errorf("%s: PIN %q", filepath.Base(path), pin)
		}
		if err != nil && strings.Contains(err.Error(), "123456") {
			t.Errorf("the message repeats the PIN: %v", err)
		}
	}
}

// terminal opens a pseudo-terminal: the person's end and the program's.
func terminal(t *testing.T) (person, tty *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return person, tty
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func TestPINPrompt(t *testing.T) {
	person, tty := terminal(t)
	type answer struct {
		pin string
		err error
	}
	answers := make(chan answer, 1)
	ask := PINPrompt(tty)
	begin := func(ctx context.Context, retries int) {
		go func() {
			pin, err := ask(ctx, hsm.PINRequest{Token: "reader", Serial: "77", Retries: retries})
			answers <- answer{pin, err}
		}()
	}
	shown := bufio.NewReader(person)
	expect := func(want string) {
		t.Helper()
		line, err := shown.ReadString(':')
		if err != nil || !strings.Contains(line, want) {
			t.Fatalf("terminal shows %q (%v), want %q", line, err, want)
		}
		if echoes(t, tty) {
			t.Error("the terminal would show the PIN")
		}
	}

	begin(t.Context(), 1)
	expect("LAST try")
	fmt.Fprint(person, "123456\r")
	if a := <-answers; a.err != nil || a.pin != "123456" {
		t.Fatalf("answer %+v", a)
	}
	if !echoes(t, tty) {
		t.Error("echo is still off")
	}

	// The card is pulled while the prompt waits: it ends, and the next prompt
	// gets the next line.
	ctx, cancel := context.WithCancel(t.Context())
	begin(ctx, 3)
	expect("3 tries left")
	cancel()
	if a := <-answers; !errors.Is(a.err, context.Canceled) {
		t.Fatalf("cancelled: %+v", a)
	}
	if !echoes(t, tty) {
		t.Error("echo is still off after the end")
	}
	begin(t.Context(), -1)
	expect("serial 77")
	fmt.Fprint(person, "654321\r")
	select {
	case a := <-answers:
		if a.err != nil || a.pin != "654321" {
			t.Fatalf("answer %+v", a)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the line was swallowed")
	}

	begin(t.Context(), -1)
	expect("serial 77")
	fmt.Fprint(person, "\r")
	if a := <-answers; !errors.Is(a.err, hsm.ErrNoPIN) {
		t.Fatalf("empty line: %+v", a)
	}
}

// What was typed into a prompt that ended does not become part of the next PIN,
// which would cost a try, nor of the shell's next line.
func TestEndedPromptDropsWhatWasTyped(t *testing.T) {
	person, tty := terminal(t)
	shown := bufio.NewReader(person)
	begin := func(ctx context.Context) chan string {
		got := make(chan string, 1)
		go func() {
			pin, err := PINPrompt(tty)(ctx, hsm.PINRequest{Token: "reader", Serial: "77", Retries: 3})
			got <- fmt.Sprint(pin, " ", err)
		}()
		if line, err := shown.ReadString(')'); err != nil {
			t.Fatalf("terminal shows %q: %v", line, err)
		}
		return got
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := begin(ctx)
	fmt.Fprint(person, "12")
	cancel()
	if said := <-got; !strings.Contains(said, context.Canceled.Error()) {
		t.Fatalf("got %s", said)
	}
	got = begin(t.Context())
	fmt.Fprint(person, "654321\r")
	if said := <-got; said != "654321 <nil>" {
		t.Errorf("got %s", said)
	}
}

func TestPromptWithoutTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "no terminal"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := PINPrompt(file)(t.Context(), hsm.PINRequest{}); !errors.Is(err, hsm.ErrNoPIN) || hsm.Hint(err) == "" {
		t.Errorf("err = %v", err)
	}
}
