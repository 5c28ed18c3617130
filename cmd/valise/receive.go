// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"valise/client"
	"valise/client/local"
)

// ReceiveCmd is `valise receive`.
type ReceiveCmd struct {
	output
	Follow bool   `short:"F" help:"Go on with what comes, through locking and unlocking, until interrupted."`
	All    bool   `help:"Begin with the oldest event instead of what is unread."`
	After  string `placeholder:"CURSOR" help:"Begin after this event's cursor."`
	Dir    string `short:"d" type:"path" placeholder:"DIR" help:"Fetch files into this folder."`
	Append string `type:"path" placeholder:"FILE" help:"Append events to this file, each one JSON line, on disk before the next; go on where the file ends. No event is lost or written twice, however this command ends."`
	Sent   bool   `help:"Show your own messages too."`
}

// Run prints what came.
func (cmd *ReceiveCmd) Run(ctx context.Context, e *env) error {
	if cmd.Dir != "" {
		if err := os.MkdirAll(cmd.Dir, 0o700); err != nil {
			return err
		}
	}
	to := &reader{env: e, cmd: cmd, seen: map[string]bool{}, after: cmd.After}
	if cmd.Append != "" {
		if err := to.open(cmd.Append); err != nil {
			return err
		}
		defer to.file.Close()
	}
	for {
		err := to.run(ctx)
		if ctx.Err() != nil {
			return nil // interrupted
		}
		if err == nil || !cmd.Follow || !locked(err) {
			return err
		}
		if err := to.rest(ctx, err); err != nil {
			return nil
		}
	}
}

// A reader takes events to where they go, each once.
type reader struct {
	env   *env
	cmd   *ReceiveCmd
	file  *os.File        // --append
	seen  map[string]bool // message ids in the file, with their senders
	after string          // cursor of the last event dealt with
	told  string          // the last trouble told
}

func (r *reader) run(ctx context.Context) error {
	c, err := r.env.agent(ctx)
	if err != nil {
		return err
	}
	q := eventsRequest{After: r.after, Follow: r.cmd.Follow, Sent: r.cmd.Sent}
	q.Unread = r.after == "" && !r.cmd.All && r.file == nil
	return c.Stream(ctx, "/events", q, func(raw json.RawMessage) error {
		var ev client.Event
		if err := json.Unmarshal(raw, &ev); err != nil {
			return err
		}
		r.told = ""
		return r.take(ctx, c, &ev)
	})
}

func (r *reader) take(ctx context.Context, c *local.Client, ev *client.Event) error {
	key := eventKey(ev)
	if key != "" && r.seen[key] {
		r.after = ev.Cursor // in the file from before this device's state was copied back
		return nil
	}
	if ev.File != nil && !ev.Outgoing && r.cmd.Dir != "" {
		path, err := fetch(ctx, c, ev, r.cmd.Dir)
		var final *local.Error
		switch {
		case errors.As(err, &final) && client.IsFileReason(final.Code):
			ev.File.Missing = final.Code
			warn("%s: %v", line(ev.File.Name), err)
		case err != nil:
			return err
		}
		ev.File.Path = path
	}
	if r.file != nil {
		line, err := jsonLine(ev)
		if err != nil {
			return err
		}
		if _, err := r.file.Write(line); err != nil {
			return err
		}
		if err := r.file.Sync(); err != nil {
			return err
		}
		r.seen[key] = true
		r.after = ev.Cursor
		return nil
	}
	show := func() error { return r.env.sayEvent(ev) }
	if r.env.json {
		show = func() error { return r.env.print(ev) }
	}
	if err := show(); err != nil {
		return err // nobody has seen it: it stays unread
	}
	r.after = ev.Cursor
	if r.cmd.After != "" {
		return nil
	}
	return c.Call(ctx, "/read", cursorRequest{ev.Cursor}, nil)
}

// rest waits while the agent is locked or gone, and says why once.
func (r *reader) rest(ctx context.Context, why error) error {
	if why.Error() != r.told {
		r.told = why.Error()
		warn("%v; waiting", why)
	}
	select {
	case <-time.After(300 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// eventKey names a message for ever; other events have none.
func eventKey(ev *client.Event) string {
	if ev.ID == (client.MessageID{}) {
		return ""
	}
	return ev.Device.String() + ev.ID.String()
}

// open reads what the file holds. A last line without an end was being written when
// the command before was killed: it is cut off and written again. Two commands that
// wrote into one file would overwrite each other's lines.
func (r *reader) open(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := lockFd(f); err != nil {
		return errors.Join(&hintError{text: path + " is being written by another receive", hint: "end that one, or name another file"}, f.Close())
	}
	r.file = f
	end, err := r.scan(f)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return nil
}

func (r *reader) scan(f io.Reader) (end int64, err error) {
	lines := bufio.NewReaderSize(f, 64<<10)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
		var ev client.Event
		if err := json.Unmarshal(bytes.TrimSpace(line), &ev); err != nil || ev.Cursor == "" {
			return 0, fmt.Errorf("line %d is not an event: name a file that receive has written, or a new one", n)
		}
		end += int64(len(line))
		r.after = ev.Cursor
		if key := eventKey(&ev); key != "" {
			r.seen[key] = true
		}
	}
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// fetch lets the agent bring an event's file into a folder.
func fetch(ctx context.Context, c *local.Client, ev *client.Event, dir string) (string, error) {
	b := newBar(ev.File.Name)
	defer b.end()
	path := ""
	err := c.Stream(ctx, "/fetch", fetchRequest{Cursor: ev.Cursor, Dir: dir}, func(raw json.RawMessage) error {
		var l fetchLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return err
		}
		b.show("fetching", l.Done, l.Total)
		path = l.Path
		return nil
	})
	if err == nil && path == "" {
		err = errors.New("the agent ended before the file was there")
	}
	return path, err
}
