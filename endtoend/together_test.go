// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"valise/internal/stage"
)

// One home serves `receive --follow`, `send` and two `chat`s at the same time: each
// follower gets every message once, and everything that was typed or sent arrives once.
// With --json each command prints JSON, one object a line.
func TestCommandsOnOneHomeAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stage.Config{}, "alice", "bob")
	alice, bob := w.people[0], w.people[1]
	w.introduce(alice, bob)

	chats := []*chat{alice.chat(bob), alice.chat(bob), bob.chat(alice)}
	const n = 10
	var toBob, toAlice []string
	say := func(list *[]string, text string) string { *list = append(*list, text); return text }
	var jobs []func(context.Context) error
	for i, c := range chats {
		list := &toBob
		if c.p == bob {
			list = &toAlice
		}
		var lines []string
		for k := range n {
			lines = append(lines, say(list, fmt.Sprintf("%s types %d into chat %d", c.p.Name, k, i)))
		}
		jobs = append(jobs, func(context.Context) error { return c.speak(lines...) })
	}
	for _, pair := range []struct {
		from, to *person
		list     *[]string
	}{{alice, bob, &toBob}, {bob, alice, &toAlice}} {
		var texts []string
		for k := range n {
			texts = append(texts, say(pair.list, fmt.Sprintf("%s sends %d", pair.from.Name, k)))
		}
		jobs = append(jobs, func(ctx context.Context) error {
			for _, text := range texts {
				if _, err := pair.from.Run(ctx, "send", pair.to.Address, text); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := together(w.ctx, jobs...); err != nil {
		t.Fatal(err)
	}
	for _, side := range []struct {
		p    *person
		want []string
	}{{alice, toAlice}, {bob, toBob}} {
		for _, text := range side.want {
			side.p.has(text)
		}
		list, err := side.p.events()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			if e.Kind == "message" && e.Text != "let us begin" && !strings.Contains(e.Text, " knocks at ") {
				got = append(got, e.Text)
			}
		}
		slices.Sort(got)
		slices.Sort(side.want)
		if !slices.Equal(got, side.want) {
			t.Errorf("receive of %s: %q, want %q", side.p.Name, got, side.want)
		}
		for _, c := range chats {
			if c.p == side.p {
				c.shows(side.want)
			}
		}
	}
	for _, c := range chats {
		if err := c.end(); err != nil {
			t.Errorf("chat of %s: %v", c.p.Name, err)
		}
	}
	alice.speaksJSON(bob)
}

// A chat is a running `valise chat --json` with its standard input held open.
type chat struct {
	p   *person
	cmd *exec.Cmd
	in  io.WriteCloser
	out string // file of what it prints
}

func (p *person) chat(with *person) *chat {
	t := p.w.t
	t.Helper()
	f, err := os.CreateTemp(p.w.Dir, "chat")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &chat{p: p, out: f.Name()}
	c.cmd = exec.CommandContext(p.w.ctx, filepath.Join(p.w.Bin, "valise"), "--home", p.Home, "chat", "--json", with.Address)
	c.cmd.Env = append(os.Environ(), p.Card.Reader.Env...)
	c.cmd.Stdout, c.cmd.Stderr = f, f
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It shows what comes once it listens; something has to come to see that.
	probe := with.Name + " knocks at " + filepath.Base(c.out)
	p.w.until("the chat of "+p.Name+" to listen", func() (bool, error) {
		if _, err := with.Run(p.w.ctx, "send", p.Address, probe); err != nil {
			return false, err
		}
		lines, err := c.lines()
		return slices.Contains(lines, probe), err
	})
	return c
}

// speak types lines.
func (c *chat) speak(lines ...string) error {
	_, err := io.WriteString(c.in, strings.Join(lines, "\n")+"\n")
	return err
}

// lines are the texts that the chat has shown.
func (c *chat) lines() (texts []string, err error) {
	data, err := os.ReadFile(c.out)
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(data) {
		var e event
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("chat of %s: %w: %s", c.p.Name, err, line)
		}
		texts = append(texts, e.Text)
	}
	return texts, nil
}

// shows waits until the chat has shown texts, each once.
func (c *chat) shows(want []string) {
	t := c.p.w.t
	t.Helper()
	c.p.w.until("a chat of "+c.p.Name, func() (bool, error) {
		got, err := c.lines()
		seen := map[string]int{}
		for _, text := range got {
			seen[text]++
		}
		for _, text := range want {
			if seen[text] > 1 {
				return false, fmt.Errorf("%q is shown %d times", text, seen[text])
			}
			if seen[text] == 0 {
				return false, err
			}
		}
		return true, err
	})
}

// end closes the input; the command ends well.
func (c *chat) end() error { return errors.Join(c.in.Close(), c.cmd.Wait()) }

// speaksJSON checks that each command with --json prints objects, one a line, with what
// a program looks for.
func (p *person) speaksJSON(other *person) {
	t := p.w.t
	t.Helper()
	for _, c := range []struct {
		args []string
		want string // a member that is not empty
	}{
		{[]string{"status", "--json"}, "address"},
		{[]string{"send", "--json", other.Address, "as JSON"}, "id"},
		{[]string{"contacts", "--json"}, "devices"},
		{[]string{"conversations", "--json"}, "members"},
		{[]string{"verify", "--json", other.Address}, "number"},
		{[]string{"receive", "--json", "--all"}, "cursor"},
		{[]string{"lock", "--json"}, ""},
		{[]string{"unlock", "--json", "--pin-file", filepath.Join(p.w.Dir, "pin")}, "unlocked"},
	} {
		out := p.must(c.args...)
		if out == "" {
			t.Errorf("%v printed nothing", c.args)
		}
		for line := range strings.Lines(out) {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil {
				t.Errorf("%v: %v: %s", c.args, err, line)
				break
			}
			if v := object[c.want]; c.want != "" && (v == nil || v == "" || v == false) {
				t.Errorf("%v: no %q in %s", c.args, c.want, line)
			}
		}
	}
}
