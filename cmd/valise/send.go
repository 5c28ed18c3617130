// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"valise/client"
	"valise/identity"
)

// SendCmd is `valise send`.
type SendCmd struct {
	output
	Args         []string `arg:"" optional:"" name:"to" help:"Addresses, then the text. Without a text and --file it is read from standard input."`
	Conversation string   `short:"c" placeholder:"ID|NAME" help:"Send into this conversation instead of naming addresses."`
	Name         string   `placeholder:"NAME" help:"Start a new conversation of this name with the addresses."`
	File         string   `short:"f" type:"existingfile" placeholder:"FILE" help:"Send a file."`
	labelling
	ID string `placeholder:"ID" help:"Message id, 32 hexadecimal digits. The same id twice is sent once: repeat a command that broke off."`
}

// Run sends, and prints the message's id when the gateway has it on disk.
func (cmd *SendCmd) Run(ctx context.Context, e *env) error {
	r, err := cmd.request(ctx, os.Stdin)
	if err != nil {
		return err
	}
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	b := newBar(filepath.Base(r.File))
	defer b.end()
	var last sendLine
	err = c.Stream(ctx, "/send", r, func(raw json.RawMessage) error {
		var l sendLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return err
		}
		b.show(l.State, l.Done, l.Total)
		if l.State == "queued" || l.State == "sent" {
			last = l
		}
		return nil
	})
	if err != nil {
		if last.State == "queued" && ctx.Err() != nil {
			return &hintError{text: "message " + last.ID.String() + " waits on this device", hint: "it leaves as soon as the gateway takes it; valise status shows the connection"}
		}
		return err
	}
	if last.State != "sent" {
		return errors.New("the agent ended before the message was sent")
	}
	b.end()
	if e.json {
		return e.print(last)
	}
	e.say("%s", last.ID)
	return nil
}

func (cmd *SendCmd) request(ctx context.Context, stdin io.Reader) (*sendRequest, error) {
	r := &sendRequest{target: target{Conversation: cmd.Conversation, Name: cmd.Name}, Label: cmd.Label, Precedence: cmd.Precedence}
	rest := cmd.Args
	for cmd.Conversation == "" && len(rest) > 0 {
		if _, err := identity.CanonicalAddress(rest[0]); err != nil {
			break
		}
		r.To, rest = append(r.To, rest[0]), rest[1:]
	}
	if cmd.Conversation == "" && len(r.To) == 0 {
		if len(rest) > 0 {
			_, err := identity.CanonicalAddress(rest[0])
			return nil, err
		}
		return nil, &hintError{text: "nobody to write to", hint: "valise send ADDRESS TEXT, or valise send -c CONVERSATION TEXT"}
	}
	if cmd.ID != "" {
		if err := r.ID.UnmarshalText([]byte(cmd.ID)); err != nil {
			return nil, err
		}
	}
	if cmd.File != "" {
		if len(rest) > 0 {
			return nil, errors.New("send the text and the file in two messages")
		}
		var err error
		r.File, err = plainFile(cmd.File)
		return r, err
	}
	r.Text = strings.Join(rest, " ")
	if len(rest) == 0 {
		var err error
		if r.Text, err = readText(ctx, stdin); err != nil {
			return nil, err
		}
	}
	return r, checkText(r.Text)
}

// plainFile is the whole path of a file that can be sent. What is none is refused
// here: the agent would wait for ever until somebody writes into a pipe.
func plainFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a plain file", path)
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// readText reads a text to its end, or until the command is interrupted.
func readText(ctx context.Context, stdin io.Reader) (string, error) {
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		warn("type the text; end it with Ctrl-D on a line of its own")
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// A line break after the longest text, and one byte that shows that there is more.
		data, err := io.ReadAll(io.LimitReader(stdin, client.MaxText+2))
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return strings.TrimSuffix(string(r.data), "\n"), r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

var errTextTooLong = &hintError{text: fmt.Sprintf("the text is longer than the %d bytes that one message takes", client.MaxText), hint: "send it as a file: --file FILE"}

// checkText refuses what would not arrive as it was given: on the way to the agent
// bytes that are not UTF-8 would turn into other ones.
func checkText(text string) error {
	switch {
	case text == "":
		return &hintError{text: "there is no text to send", hint: "give it behind the addresses or on standard input"}
	case len(text) > client.MaxText:
		return errTextTooLong
	case !utf8.ValidString(text):
		return &hintError{text: "this is not text (UTF-8)", hint: "send it as a file: --file FILE"}
	}
	return nil
}
