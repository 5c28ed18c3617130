// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"valise/client"
)

// WithdrawCmd is `valise withdraw`.
type WithdrawCmd struct {
	output
	ID           string `arg:"" optional:"" help:"Message id, as send has printed it."`
	Conversation string `short:"c" placeholder:"ID|NAME" help:"Take back all that waits in this conversation, people to add or remove too."`
}

type withdrawRequest struct {
	ID           client.MessageID `json:"id,omitzero"`
	Conversation string           `json:"conversation,omitempty"`
}

// withdrawn is how much was taken back.
type withdrawn struct {
	Count int `json:"count"`
}

// Run takes back.
func (cmd *WithdrawCmd) Run(ctx context.Context, e *env) error {
	r := withdrawRequest{Conversation: cmd.Conversation}
	switch {
	case (cmd.ID == "") == (cmd.Conversation == ""):
		return &hintError{text: "name a message or a conversation", hint: "valise withdraw ID, or valise withdraw -c CONVERSATION"}
	case cmd.ID != "":
		if err := r.ID.UnmarshalText([]byte(cmd.ID)); err != nil {
			return err
		}
	}
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var done withdrawn
	if err := c.Call(ctx, "/withdraw", r, &done); err != nil {
		return err
	}
	if e.json {
		return e.print(done)
	}
	e.say("taken back: %d", done.Count)
	return nil
}

func withdraw(ctx context.Context, s *session, r *withdrawRequest) (*withdrawn, error) {
	if r.Conversation == "" {
		if r.ID == (client.MessageID{}) {
			return nil, errors.New("nothing is named that could be taken back")
		}
		return &withdrawn{1}, s.engine.Withdraw(ctx, r.ID)
	}
	id, err := s.find(r.Conversation)
	if err != nil {
		return nil, err
	}
	n, err := s.engine.WithdrawAll(ctx, id)
	return &withdrawn{n}, err
}
