// SPDX-License-Identifier: Apache-2.0

//go:build linux

package land

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"valise/internal/handbook"
	"valise/internal/stage"
)

// A session is a command at a terminal, with somebody who answers it.
type session struct {
	cmd      *exec.Cmd
	person   *os.File // the person's end of the terminal
	ended    chan struct{}
	changed  chan struct{} // something was printed
	silent   chan struct{} // the terminal has been let go by everybody
	answered int           // output up to here has been answered
	matched  int           // lines that an earlier step was about

	mu  sync.Mutex
	out []byte // guarded by mu
}

// asks are the prompts that the harness answers: a PIN is the one of all cards and
// tokens, and a question has the answer that stands in the document.
var (
	asksPIN = regexp.MustCompile(`(?i)(^|\n)[^\n]*\bPIN\b[^\n]*: $`)
	asks    = regexp.MustCompile(`(^|\n)[^\n]*\[y/N\] $`)
	asksOn  = regexp.MustCompile(`(^|\n)(\[[^\n\]]*\] )?> $`)
	typed   = regexp.MustCompile(`^(?:\[[^\]]*\] )?> (.*)$`)
)

const (
	interrupt = "\x03"
	endOfText = "\x04"
)

// terminal opens a pseudo-terminal wide enough for every line.
func terminal() (person, program *os.File, err error) {
	if person, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(person.Fd())
	n := 0
	err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	if err == nil {
		n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 100, Col: 500})
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		person.Close()
	}
	return person, program, err
}

// type starts a command on a machine, as if somebody typed it there.
func (m *machine) start(command string) (*session, error) {
	person, program, err := terminal()
	if err != nil {
		return nil, err
	}
	defer program.Close()
	s := &session{person: person, ended: make(chan struct{}), changed: make(chan struct{}, 1), silent: make(chan struct{})}
	s.cmd = m.inside(nil, "/bin/sh", "-c", command)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = program, program, program
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := startLocked(s.cmd, s.ended); err != nil {
		return nil, errors.Join(err, person.Close())
	}
	go s.listen()
	return s, nil
}

func (s *session) listen() {
	defer close(s.silent)
	buffer := make([]byte, 4096)
	for {
		n, err := s.person.Read(buffer)
		s.mu.Lock()
		s.out = append(s.out, buffer[:n]...)
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// printed is what is on the screen, and its lines.
func (s *session) printed() (string, []string) {
	s.mu.Lock()
	text := strings.ReplaceAll(string(s.out), "\r", "")
	s.mu.Unlock()
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(strings.TrimPrefix(lines[i], "^C"), " ")
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return text, lines
}

// A dialogue is one step's part of a session.
type dialogue struct {
	*session
	step   *handbook.Step
	table  handbook.Table
	values handbook.Values
	lines  []string // that are typed at a "> "
	no     bool     // the answer to a question
	keyed  bool     // ^C was pressed

	patience time.Duration
}

func (l *Land) dialogue(s *session, step *handbook.Step) *dialogue {
	d := &dialogue{session: s, step: step, table: l.cfg.Table, values: l.values, patience: l.cfg.Patience}
	for _, text := range step.Expect {
		if match := typed.FindStringSubmatch(text); match != nil {
			d.lines = append(d.lines, match[1])
		}
		d.no = d.no || strings.HasSuffix(text, "[y/N] n")
	}
	return d
}

// hold answers until the command ends, or until what this step shows is there and the
// command goes on.
func (d *dialogue) hold(ctx context.Context) error {
	timer := time.NewTimer(d.patience)
	defer timer.Stop()
	for {
		select {
		case <-d.ended:
			select { // what was printed last is still on its way
			case <-d.silent:
			case <-time.After(d.patience):
				return errors.New("the command has ended, and something else of it holds the terminal")
			}
			return nil
		case <-d.changed:
			timer.Reset(d.patience)
		case <-timer.C:
			_, lines := d.printed()
			return errors.Join(errPatience, d.compare(lines))
		case <-ctx.Done():
			return ctx.Err()
		}
		text, lines := d.printed()
		if err := d.answer(text); err != nil {
			return err
		}
		if d.step.Stays && d.compare(lines) == nil {
			return nil
		}
		if at := d.key(); at >= 0 && !d.keyed && d.table.Match(d.want()[:at], lines[min(d.matched, len(lines)):], d.guess()) == nil {
			d.keyed = true
			if _, err := d.person.WriteString(interrupt); err != nil {
				return err
			}
		}
	}
}

// guess is a copy of the values, for a comparison that may come too early.
func (d *dialogue) guess() handbook.Values {
	all := make(handbook.Values, len(d.values))
	for k, v := range d.values {
		all[k] = v
	}
	return all
}

// key is the line at which ^C is pressed, or -1.
func (d *dialogue) key() int { return slices.Index(d.step.Expect, "^C") }

// want is what the screen must show. Keys are not part of it: a terminal may lose what
// it echoes of them when the program ends.
func (d *dialogue) want() (want []string) {
	for _, text := range d.step.Expect {
		if text != "^C" {
			want = append(want, strings.TrimRight(strings.TrimSuffix(text, "^D"), " "))
		}
	}
	return want
}

func (d *dialogue) compare(lines []string) error {
	return d.table.Match(d.want(), lines[min(d.matched, len(lines)):], d.values)
}

// answer types what a prompt at the end of the screen asks for.
func (d *dialogue) answer(text string) error {
	if len(text) <= d.answered {
		return nil
	}
	what := ""
	switch end := text[d.answered:]; {
	case asksPIN.MatchString(end):
		what = stage.PIN + "\n"
	case asks.MatchString(end) && d.no:
		what = "n\n"
	case asks.MatchString(end):
		what = "y\n"
	case asksOn.MatchString(end) && len(d.lines) > 0:
		what = d.lines[0] + "\n"
		if d.lines[0] == "^D" {
			what = endOfText
		}
		d.lines = d.lines[1:]
	default:
		return nil
	}
	d.answered = len(text)
	_, err := d.person.WriteString(what)
	return err
}
