// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/client"
	"valise/client/local"
	"valise/identity"
)

func TestSendRequest(t *testing.T) {
	for name, c := range map[string]struct {
		cmd   SendCmd
		stdin string
		to    []string
		text  string
	}{
		"argument":     {cmd: SendCmd{Args: []string{"bob@b.example", "hello", "you"}}, to: []string{"bob@b.example"}, text: "hello you"},
		"stdin":        {cmd: SendCmd{Args: []string{"bob@b.example", "carol@b.example"}}, stdin: "two\nlines\n", to: []string{"bob@b.example", "carol@b.example"}, text: "two\nlines"},
		"conversation": {cmd: SendCmd{Conversation: "cell", Args: []string{"bob@b.example", "wrote this"}}, text: "bob@b.example wrote this"},
	} {
		r, err := c.cmd.request(t.Context(), strings.NewReader(c.stdin))
		if err != nil || !slices.Equal(r.To, c.to) || r.Text != c.text {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	longest := strings.Repeat("x", client.MaxText)
	for name, c := range map[string]struct{ stdin, want string }{
		"longest":           {longest, ""},
		"longest and line":  {longest + "\n", ""},
		"longest and more":  {longest + "\nand more", "longer than the 131072 bytes"},
		"one byte too long": {longest + "x", "longer than the 131072 bytes"},
		"a mebibyte":        {strings.Repeat("x", 1<<20), "longer than the 131072 bytes"},
		"binary":            {"caf\xe9", "not text (UTF-8)"},
		"empty":             {"", "no text"},
		"empty line":        {"\n", "no text"},
	} {
		_, err := (&SendCmd{Args: []string{"bob@b.example"}}).request(t.Context(), strings.NewReader(c.stdin))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for name, cmd := range map[string]SendCmd{
		"empty argument": {Args: []string{"bob@b.example", ""}}, "a folder": {Args: []string{"bob@b.example"}, File: t.TempDir()},
		"nobody": {}, "no address": {Args: []string{"bob", "hello"}}, "bad id": {Args: []string{"bob@b.example", "x"}, ID: "12"},
		"text and file": {Args: []string{"bob@b.example", "x"}, File: "f"},
	} {
		if _, err := cmd.request(t.Context(), strings.NewReader("typed")); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// Ctrl-C ends a command that waits for somebody to type.
func TestTypingCanBeInterrupted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	if _, err := readText(ctx, r); !errors.Is(err, interrupted) {
		t.Errorf("reading ended with %v", err)
	}
}

func event(t *testing.T, cursor string, id byte) string {
	t.Helper()
	line, err := json.Marshal(client.Event{Cursor: cursor, Kind: client.EventMessage, ID: client.MessageID{id}, Text: "text"})
	if err != nil {
		t.Fatal(err)
	}
	return string(line) + "\n"
}

// A receiver that was killed in the middle of a line goes on behind the last whole
// one, and knows what stands in the file.
func TestAppendGoesOn(t *testing.T) {
	whole := event(t, "aa.1", 1) + event(t, "aa.2", 2)
	for name, torn := range map[string]string{"whole": "", "torn": `{"cursor":"aa.3","ki`} {
		path := filepath.Join(t.TempDir(), "events.jsonl")
		if err := os.WriteFile(path, []byte(whole+torn), 0o600); err != nil {
			t.Fatal(err)
		}
		r := &reader{seen: map[string]bool{}}
		if err := r.open(path); err != nil {
			t.Fatal(err)
		}
		if _, err := r.file.WriteString("next\n"); err != nil {
			t.Fatal(err)
		}
		r.file.Close()
		got, _ := os.ReadFile(path)
		if string(got) != whole+"next\n" {
			t.Errorf("%s: the file holds %q", name, got)
		}
		if r.after != "aa.2" || len(r.seen) != 2 || !r.seen[eventKey(&client.Event{ID: client.MessageID{2}})] {
			t.Errorf("%s: goes on after %q, knows %v", name, r.after, r.seen)
		}
	}
	foreign := filepath.Join(t.TempDir(), "letter.txt")
	if err := os.WriteFile(foreign, []byte("dear bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&reader{seen: map[string]bool{}}).open(foreign); err == nil {
		t.Error("a foreign file was taken for one of ours")
	}
	if got, _ := os.ReadFile(foreign); string(got) != "dear bob\n" {
		t.Errorf("the foreign file holds %q now", got)
	}
}

func TestPlainText(t *testing.T) {
	for in, want := range map[string]string{
		"hello\n\tyou": "hello\n\tyou", "\x1b[2Jgone": "\ufffd[2Jgone", "abc\u202edcba": "abc\ufffddcba", "ä€😀": "ä€😀", "a\rb": "a\ufffdb",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

// Nobody's text looks like a line of somebody else's.
func TestTextCannotPassForAMessage(t *testing.T) {
	forged := "2026-11-22 00:51 minister@a.example: do it"
	ev := &client.Event{Kind: client.EventMessage, From: "mallory@a.example", Text: "hello\n" + forged}
	lines := strings.Split(describe(ev), "\n")
	if len(lines) != 2 || lines[1] != "    "+forged {
		t.Errorf("%q", lines)
	}
}

// JSON printed on a terminal does not steer it, and still says the same.
func TestJSONLine(t *testing.T) {
	for _, text := range []string{"ä€😀", "\x1b[2J", "\u009b2J", "\x7f", "abc\u202edcba", "\U000e0041 tag", "<a&b>", "\u2028"} {
		line, err := jsonLine(text)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(strings.TrimSuffix(string(line), "\n"), steers) {
			t.Errorf("%q was printed as %q", text, line)
		}
		var back string
		if err := json.Unmarshal(line, &back); err != nil || back != text {
			t.Errorf("%q came back as %q, %v", text, back, err)
		}
	}
}

// Two receivers do not write into one file.
func TestAppendHasOneWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first := &reader{seen: map[string]bool{}}
	if err := first.open(path); err != nil {
		t.Fatal(err)
	}
	if err := (&reader{seen: map[string]bool{}}).open(path); err == nil {
		t.Error("a second receiver writes into the file")
	}
	if err := first.file.Close(); err != nil {
		t.Fatal(err)
	}
	again := &reader{seen: map[string]bool{}}
	if err := again.open(path); err != nil {
		t.Fatal(err)
	}
	again.file.Close()
}

func TestLockedIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"locked":   {local.AsError(errLocked("the card was removed")), true},
		"no agent": {local.ErrNoAgent, true},
		"other":    {local.AsError(errors.New("no such conversation")), false},
		"nothing":  {nil, false},
	} {
		if got := locked(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Both addresses of a gateway are looked at before a card is; one may be left out.
func TestGatewayAddresses(t *testing.T) {
	for _, c := range []struct {
		quic, tcp []string
		ok        bool
	}{
		{[]string{"gw.a.example:4433"}, nil, true},
		{[]string{"gw.a.example:4433"}, []string{"[2001:db8::1]:443"}, true},
		{[]string{"gw.a.example"}, nil, false},
		{[]string{"gw.a.example:4433"}, []string{"gw.a.example"}, false},
		{[]string{"gw1.a.example:4433", "gw2.a.example:4433"}, nil, true},
		{[]string{"gw1.a.example:4433", "gw2.a.example:4433"}, []string{"gw1.a.example:443", "gw2.a.example:443"}, true},
		{[]string{"gw1.a.example:4433", "gw2.a.example:4433"}, []string{"gw1.a.example:443"}, false},
		{[]string{"gw1.a.example:4433", "gw2.a.example"}, nil, false},
	} {
		cmd := &EnrollCmd{Gateway: c.quic, GatewayTCP: c.tcp}
		if err := cmd.checkAddresses(); (err == nil) != c.ok {
			t.Errorf("%q and %q: %v", c.quic, c.tcp, err)
		}
	}
}

// The certificate is renewed when two thirds of its life are over.
func TestUntilRenewal(t *testing.T) {
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	p := &profile{Chain: [][]byte{certificate(t, begin, begin.Add(6*24*time.Hour))}}
	wait, err := untilRenewal(p, begin.Add(24*time.Hour))
	if err != nil || wait != 3*24*time.Hour {
		t.Errorf("a six-day certificate on its second day: %v, %v", wait, err)
	}
	if wait, err := untilRenewal(p, begin.Add(5*24*time.Hour)); err != nil || wait >= 0 {
		t.Errorf("on its sixth day: %v, %v", wait, err)
	}
}

func TestProfileSurvives(t *testing.T) {
	home := t.TempDir()
	if _, err := loadProfile(home); !errors.Is(err, errNotEnrolled) {
		t.Fatal(err)
	}
	address, err := identity.ParseAddress("alice@a.example")
	if err != nil {
		t.Fatal(err)
	}
	p := &profile{Address: address, Card: "piv:?serial=1", Sign: "9a"}
	if err := p.save(home); err != nil {
		t.Fatal(err)
	}
	if _, err := loadProfile(home); !errors.Is(err, errNotEnrolled) {
		t.Fatalf("an enrollment that did not end: %v", err)
	}
	p.Chain = [][]byte{{1}}
	if err := p.save(home); err != nil {
		t.Fatal(err)
	}
	if got, err := loadProfile(home); err != nil || got.Address != address {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestOneAgentAHome(t *testing.T) {
	home := t.TempDir()
	release, err := takeLock(home)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(home); err == nil {
		t.Fatal("two processes work in one home")
	}
	release()
	again, err := takeLock(home)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
