// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"valise/client"
	"valise/hsm"
	"valise/internal/keys"
)

// UnlockCmd is `valise unlock`.
type UnlockCmd struct {
	output
	PINFile string `name:"pin-file" type:"path" placeholder:"FILE" help:"Read the PIN from a file that only you can read."`
}

// Run hands the PIN to the agent, which shows it to the card and forgets it.
func (cmd *UnlockCmd) Run(ctx context.Context, e *env) error {
	p, err := loadProfile(e.home)
	if err != nil {
		return err
	}
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var st agentStatus
	if err := c.Call(ctx, "/status", nil, &st); err != nil {
		return err
	}
	if !st.Unlocked {
		ask := keys.PINPrompt(nil)
		if cmd.PINFile != "" {
			ask = keys.PINFromFile(cmd.PINFile)
		}
		pin, err := ask(ctx, hsm.PINRequest{Token: p.Card, Serial: strings.TrimPrefix(p.Card, "piv:?serial="), Retries: -1})
		if err != nil {
			return err
		}
		if err := c.Call(ctx, "/unlock", unlockRequest{PIN: pin}, nil); err != nil {
			return err
		}
	}
	waiting := c.Call(ctx, "/ready", nil, nil)
	if locked(waiting) || ctx.Err() != nil {
		return waiting
	}
	if e.json {
		return e.print(map[string]any{"unlocked": true, "address": p.Address, "connected": waiting == nil})
	}
	e.say("unlocked as %s", p.Address)
	if waiting != nil {
		e.say("%s", line(waiting.Error()))
	}
	return nil
}

// LockCmd is `valise lock`.
type LockCmd struct{ output }

// Run locks.
func (cmd *LockCmd) Run(ctx context.Context, e *env) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	if err := c.Call(ctx, "/lock", nil, nil); err != nil {
		return err
	}
	if e.json {
		return e.print(map[string]any{"unlocked": false})
	}
	e.say("locked")
	return nil
}

// StatusCmd is `valise status`.
type StatusCmd struct{ output }

// Run shows the state of the device.
func (cmd *StatusCmd) Run(ctx context.Context, e *env) error {
	if _, err := loadProfile(e.home); errors.Is(err, errNotEnrolled) && e.json {
		return e.print(agentStatus{})
	}
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var st agentStatus
	if err := c.Call(ctx, "/status", nil, &st); err != nil {
		return err
	}
	if e.json {
		return e.print(st)
	}
	e.say("address   %s\ndevice    %s\ncard      %s\ngateway   %s", st.Address, st.Device, st.Card, strings.Join(st.Gateways, ", "))
	if !st.Unlocked {
		why := ""
		if st.Why != "" {
			why = " (" + st.Why + ")"
		}
		e.say("state     locked%s; run: valise unlock", why)
		return nil
	}
	s := st.Engine
	way := ""
	if s.Connection.Transport != "" {
		way = " by " + s.Connection.Transport + " at " + s.Connection.Node
	}
	e.say("state     unlocked, %s%s since %s", s.Connection.Name, way, s.Connection.Since.Local().Format("15:04:05"))
	if s.Connection.Error != "" {
		e.say("trouble   %s", line(s.Connection.Error))
	}
	e.say("expires   %s\nqueued    %d", s.Expires.Local().Format("2006-01-02 15:04"), s.Queued)
	if r := s.Record; r != nil {
		e.say("record    %d leaves, manifest %d", r.Leaves, r.Manifest)
		if r.Refused > 0 {
			e.say("standings bulletin %d is %s old: TOO OLD for some or all that is to be sent", r.Bulletin, r.Age)
		}
		if r.Trouble != "" {
			e.say("trouble   %s (%s)", client.RecordText(r.Trouble), line(r.Trouble))
		}
	}
	if s.ClockSkew != "" {
		e.say("clock     differs from the gateway's by %s", s.ClockSkew)
	}
	return nil
}

// ContactsCmd is `valise contacts`.
type ContactsCmd struct {
	output
	Prefix string `arg:"" optional:"" help:"Only addresses that begin with it."`
}

// Run lists who has a device that can be written to.
func (cmd *ContactsCmd) Run(ctx context.Context, e *env) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var l listing[client.Contact]
	if err := c.Call(ctx, "/contacts", addressRequest{cmd.Prefix}, &l); err != nil {
		return err
	}
	for _, who := range l.List {
		if e.json {
			if err := e.print(who); err != nil {
				return err
			}
			continue
		}
		var devices []string
		for i, d := range who.Devices {
			devices = append(devices, fmt.Sprintf("%s (%s)", d.String()[:8], who.Tiers[i]))
		}
		e.say("%s  %s", who.Address, strings.Join(devices, ", "))
	}
	return nil
}

// ConversationsCmd is `valise conversations`.
type ConversationsCmd struct{ output }

// Run lists conversations.
func (cmd *ConversationsCmd) Run(ctx context.Context, e *env) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var l listing[client.Conversation]
	if err := c.Call(ctx, "/conversations", nil, &l); err != nil {
		return err
	}
	for _, conv := range l.List {
		if e.json {
			if err := e.print(conv); err != nil {
				return err
			}
			continue
		}
		name := ""
		if conv.Name != "" {
			name = " \"" + line(conv.Name) + "\""
		}
		state := ""
		if conv.State != "active" {
			state = " (" + conv.State + ")"
		} else if conv.Held != "" {
			state = " (what you write WAITS: " + client.HeldText(conv.Held) + ")"
		}
		e.say("%s%s%s  %s, %d devices", conv.ID.String()[:8], name, state, strings.Join(conv.People, " "), len(conv.Members))
	}
	return nil
}

// VerifyCmd is `valise verify`.
type VerifyCmd struct {
	output
	Address string `arg:"" help:"Whom to compare with."`
}

// Run shows the safety number.
func (cmd *VerifyCmd) Run(ctx context.Context, e *env) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var v client.Verification
	if err := c.Call(ctx, "/verify", addressRequest{cmd.Address}, &v); err != nil {
		return err
	}
	if e.json {
		return e.print(v)
	}
	groups := strings.Fields(v.Number)
	e.say("safety number with %s:\n", v.Address)
	for len(groups) > 0 {
		n := min(4, len(groups))
		e.say("    %s", strings.Join(groups[:n], "  "))
		groups = groups[n:]
	}
	e.say("\nCall %s and compare: the same number on both sides means that nobody stands between\nyou. It changes when either of you gets a new device.", v.Address)
	return nil
}

// AddCmd is `valise add`.
type AddCmd struct {
	output
	Conversation string   `arg:"" help:"Its id, the beginning of its id, or its name."`
	Who          []string `arg:"" help:"Addresses. Everybody in the conversation sees them come in."`
}

// Run adds people.
func (cmd *AddCmd) Run(ctx context.Context, e *env) error {
	return e.members(ctx, membersRequest{Conversation: cmd.Conversation, Who: cmd.Who})
}

// RemoveCmd is `valise remove`.
type RemoveCmd struct {
	output
	Conversation string   `arg:"" help:"Its id, the beginning of its id, or its name."`
	Who          []string `arg:"" help:"Addresses. Everybody in the conversation sees them go."`
}

// Run removes people.
func (cmd *RemoveCmd) Run(ctx context.Context, e *env) error {
	return e.members(ctx, membersRequest{Conversation: cmd.Conversation, Who: cmd.Who, Remove: true})
}

func (e *env) members(ctx context.Context, r membersRequest) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	if err := c.Call(ctx, "/members", r, nil); err != nil {
		return err
	}
	if e.json {
		return e.print(map[string]any{"done": true})
	}
	e.say("done")
	return nil
}
