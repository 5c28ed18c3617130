// SPDX-License-Identifier: Apache-2.0

package handbook

import (
	"fmt"
	"regexp"
	"strings"
)

// A Step is what a reader does next: type a command, go on with one that runs, or
// write a file.
type Step struct {
	At      string // document and line
	Section string // within which values stay the same
	NotRun  string // the reason, if nothing does it here
	Machine string

	Command string   // "" goes on with the command that runs there
	Admin   bool     // typed by the machine's administrator
	Expect  []string // what is printed, and typed in between
	Stays   bool     // a later step goes on with it

	Path     string // of a file that is written; then there is no command
	Contents string
}

var (
	prompt = regexp.MustCompile(`^([a-z][a-z0-9]*)([$#]) (\S.*)$`)
	place  = regexp.MustCompile(`^([a-z][a-z0-9]*):(/\S+)$`)
)

// Steps gives what stands in the blocks, in their order. A block of text that is
// neither a transcript nor a file gives nothing.
func Steps(blocks []*Block) ([]*Step, error) {
	var steps []*Step
	for _, b := range blocks {
		var of []*Step
		var err error
		switch {
		case b.Language == "console":
			of, err = b.transcript()
		case len(b.Words) > 0:
			of, err = b.file()
		case strings.HasPrefix(b.Language, "sh") || b.Language == "bash":
			err = fmt.Errorf("commands stand in blocks of the language console")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.At(), err)
		}
		for _, s := range of {
			s.Section = fmt.Sprintf("%s:%d", b.Document, b.Section)
		}
		steps = append(steps, of...)
	}
	return steps, stay(steps)
}

func (b *Block) file() ([]*Step, error) {
	match := place.FindStringSubmatch(b.Words[0])
	if match == nil || len(b.Words) > 1 {
		return nil, fmt.Errorf("%q: want MACHINE:/PATH", strings.Join(b.Words, " "))
	}
	return []*Step{{
		At: b.At(), NotRun: b.NotRun, Machine: match[1], Path: match[2], Contents: strings.Join(b.Text, "\n") + "\n",
	}}, nil
}

func (b *Block) transcript() (steps []*Step, err error) {
	for i, text := range b.Text {
		at := fmt.Sprintf("%s:%d", b.Document, b.Line+i)
		if match := prompt.FindStringSubmatch(text); match != nil {
			steps = append(steps, &Step{At: at, NotRun: b.NotRun, Machine: match[1], Admin: match[2] == "#", Command: match[3]})
			continue
		}
		if i == 0 { // goes on with what runs
			if len(b.Words) != 1 {
				return nil, fmt.Errorf("it begins without a prompt, and the info string names no machine")
			}
			steps = append(steps, &Step{At: at, NotRun: b.NotRun, Machine: b.Words[0]})
		}
		last := steps[len(steps)-1]
		if command, more := strings.CutSuffix(last.Command, `\`); more && last.Expect == nil {
			last.Command = command + strings.TrimSpace(text)
			continue
		}
		last.Expect = append(last.Expect, text)
	}
	return steps, nil
}

// stay finds the commands that later steps go on with.
func stay(steps []*Step) error {
	last := make(map[string]*Step)
	for _, s := range steps {
		switch {
		case s.Path != "" || s.NotRun != "":
			continue
		case s.Command == "" && last[s.Machine] == nil:
			return fmt.Errorf("%s: nothing runs on the machine of %s", s.At, s.Machine)
		case s.Command == "":
			last[s.Machine].Stays = true
		}
		last[s.Machine] = s
	}
	return nil
}
