// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"valise/client"
	"valise/client/local"
)

// ChatCmd is `valise chat`.
type ChatCmd struct {
	output
	To           []string `arg:"" optional:"" help:"Addresses."`
	Conversation string   `short:"c" placeholder:"ID|NAME" help:"Chat in this conversation instead of naming addresses."`
	labelling
}

// Run sends each line of standard input and prints what comes, until the input ends.
func (cmd *ChatCmd) Run(ctx context.Context, e *env) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var conv client.Conversation
	if err := c.Call(ctx, "/target", target{To: cmd.To, Conversation: cmd.Conversation}, &conv); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listening := make(chan error, 1)
	ready := make(chan struct{})
	go func() { listening <- cmd.listen(ctx, e, c, conv.ID, ready) }()
	select {
	case <-ready:
	case err := <-listening:
		return err
	}
	typed := make(chan error, 1)
	go func() { typed <- cmd.speak(ctx, e, c, conv.ID) }()
	select {
	case err = <-typed:
	case err = <-listening:
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listen prints what others say, through locking and unlocking.
func (cmd *ChatCmd) listen(ctx context.Context, e *env, c *local.Client, conv client.ConversationID, ready chan struct{}) error {
	// Where the log ends now: what comes after it is new.
	var start struct{ Cursor string }
	if err := c.Call(ctx, "/cursor", nil, &start); err != nil {
		return err
	}
	close(ready)
	after := start.Cursor
	told := ""
	for {
		q := eventsRequest{target: target{Conversation: conv.String()}, After: after, Follow: true}
		err := c.Stream(ctx, "/events", q, func(raw json.RawMessage) error {
			var ev client.Event
			if err := json.Unmarshal(raw, &ev); err != nil {
				return err
			}
			after, told = ev.Cursor, ""
			if e.json {
				return e.print(ev)
			}
			return e.sayEvent(&ev)
		})
		if ctx.Err() != nil || !locked(err) {
			return err
		}
		if told != err.Error() {
			told = err.Error()
			warn("%v; waiting", err)
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// speak sends what is typed. Each line has its id from the start, so that a line that
// was under way when the agent was locked is sent once.
func (cmd *ChatCmd) speak(ctx context.Context, e *env, c *local.Client, conv client.ConversationID) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 64<<10), client.MaxText)
	l := &labeller{env: e, agent: c, target: target{Conversation: conv.String()}, labelling: cmd.labelling}
	if err := l.check(ctx, cmd.labelling); err != nil {
		return err
	}
	for l.prompt(); lines.Scan(); l.prompt() {
		text := strings.TrimRight(lines.Text(), "\r")
		if text == "" {
			continue
		}
		if phrase, ok := labelCommand(text); ok {
			l.change(ctx, phrase)
			continue
		}
		text = strings.TrimPrefix(text, escapedCommand(text))
		if err := checkText(text); err != nil {
			warn("not sent: %v", err)
			continue
		}
		r := sendRequest{target: l.target, ID: client.NewMessageID(), Text: text, Label: l.Label, Precedence: l.Precedence}
		err := c.Stream(ctx, "/send", r, func(json.RawMessage) error { return nil })
		for locked(err) && ctx.Err() == nil {
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
			err = c.Stream(ctx, "/send", r, func(json.RawMessage) error { return nil })
		}
		if err != nil && ctx.Err() == nil {
			warnAll("not sent: ", err)
		}
	}
	err := lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = errTextTooLong
	}
	return errors.Join(err, ctx.Err())
}
