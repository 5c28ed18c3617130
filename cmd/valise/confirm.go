// SPDX-License-Identifier: Apache-2.0

package main

import "context"

// ConfirmCmd is `valise confirm`.
type ConfirmCmd struct {
	output
	Conversation string `arg:"" help:"Its id, the beginning of its id, or its name. Look first who is in it: valise conversations."`
}

type confirmRequest struct {
	Conversation string `json:"conversation"`
}

// Run confirms.
func (cmd *ConfirmCmd) Run(ctx context.Context, e *env) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	if err := c.Call(ctx, "/confirm", confirmRequest{cmd.Conversation}, nil); err != nil {
		return err
	}
	if e.json {
		return e.print(map[string]any{"done": true})
	}
	e.say("done")
	return nil
}

func confirm(ctx context.Context, s *session, r *confirmRequest) (*none, error) {
	id, err := s.find(r.Conversation)
	if err != nil {
		return nil, err
	}
	return &none{}, s.engine.Confirm(ctx, id)
}
