// SPDX-License-Identifier: Apache-2.0

//go:build linux

package land

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"valise/internal/handbook"
)

// complains is a line by which a program of ours says why it did not do what was
// asked. Only a command of which the document shows such a line may fail.
var complains = regexp.MustCompile(`^valise[a-z-]*: `)

// Play does what a step says, and compares.
func (l *Land) Play(ctx context.Context, step *handbook.Step) error {
	m := l.machines[step.Machine]
	if m == nil {
		return fmt.Errorf("%s: there is no machine %s", step.At, step.Machine)
	}
	if step.Section != l.section {
		l.section = step.Section
		l.cfg.Table.Forget(l.values)
	}
	if err := l.play(ctx, m, step); err != nil {
		return fmt.Errorf("%s: %s: %w", step.At, step.Machine, err)
	}
	return nil
}

func (l *Land) play(ctx context.Context, m *machine, step *handbook.Step) error {
	text, err := l.cfg.Table.Fill(step.Command, l.values)
	if err != nil {
		return err
	}
	switch {
	case step.Path != "":
		contents, err := l.cfg.Table.Fill(step.Contents, l.values)
		if err != nil {
			return err
		}
		path := step.Path
		if rest, ok := strings.CutPrefix(path, "/~/"); ok {
			path = filepath.Join(userHome, rest)
		}
		return m.write(path, contents)
	case step.Command == "":
		return l.goOn(ctx, m, step)
	case m.running != nil:
		return fmt.Errorf("a command still runs there: %s", strings.Join(m.running.cmd.Args, " "))
	}
	if served, out, err := l.service(ctx, m, text); served {
		if err == nil {
			err = l.cfg.Table.Match(step.Expect, out, l.values)
		}
		return err
	}
	late := time.Now().Add(l.cfg.Patience)
	for {
		if m.running, err = m.start(text); err != nil {
			return err
		}
		err = l.goOn(ctx, m, step)
		if err == nil || ctx.Err() != nil || !looks.MatchString(text) || time.Now().After(late) {
			return err
		}
		select { // what is to be seen may still be on its way: somebody would look again
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// looks are commands that change nothing and show what others have done.
var looks = regexp.MustCompile(`^valise (status|contacts|conversations|labels|officer (requests|standings|proposals|show|roster list))\b`)

// goOn has a step's part in the command that runs.
func (l *Land) goOn(ctx context.Context, m *machine, step *handbook.Step) error {
	s := m.running
	if s == nil {
		return fmt.Errorf("nothing runs there")
	}
	d := l.dialogue(s, step)
	if err := d.hold(ctx); err != nil {
		return err
	}
	if step.Stays {
		_, lines := d.printed()
		s.matched = len(lines)
		select {
		case <-s.ended:
			return fmt.Errorf("the command has ended, and the document goes on with it:\n    %s", strings.Join(lines, "\n    "))
		default:
		}
		return nil
	}
	m.running = nil
	_, lines := s.printed()
	defer s.person.Close()
	if err := d.compare(lines); err != nil {
		return err
	}
	if err := status(step, s.cmd.ProcessState); err != nil {
		return fmt.Errorf("%w\nprinted:\n    %s", err, strings.Join(lines, "\n    "))
	}
	return nil
}

// status wants a command to have succeeded, unless the document shows a complaint.
func status(step *handbook.Step, state *os.ProcessState) error {
	for _, line := range step.Expect {
		if complains.MatchString(line) {
			return nil
		}
	}
	if !state.Success() && !slices.Contains(step.Expect, "^C") {
		return fmt.Errorf("%v", state)
	}
	return nil
}
