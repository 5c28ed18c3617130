// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"

	"valise/client/vault"
)

// Who has queued something that does not go out can take it back, as long as the gateway
// does not have it. What was offered and not taken was seen by the gateway all the same,
// as bytes that it cannot open.

var (
	errTakenBack   error = &hintError{"it was taken back before the gateway had it", "write it again if it is to go out after all"}
	errSentAlready error = &hintError{"the gateway has it already", "what was sent cannot be taken back"}
	errGivenUp           = errors.New("it was given up already")
)

// Withdraw takes a message back that waits on this device. One that is being offered to
// the gateway at this moment is waited for: the answer decides.
func (e *Engine) Withdraw(ctx context.Context, id MessageID) error {
	for {
		news := e.bell.wait()
		o, err := e.Outcome(ctx, id)
		switch {
		case err != nil:
			return err
		case o.State == OutcomeSent:
			return errSentAlready
		case o.State == OutcomeRefused:
			return errGivenUp
		}
		if done, err := e.takeBackOne(o.Intent); done || err != nil {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// WithdrawAll takes back what waits in a conversation, messages and changes of who is in
// it, and returns how much that was. What is being offered at this moment stays.
func (e *Engine) WithdrawAll(ctx context.Context, id ConversationID) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conversations[id] == nil {
		return 0, errNoConversation
	}
	taken := 0
	// The last one first: their sequence numbers are given back in order.
	numbers := e.backlog.waiting(id)
	for i := len(numbers) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return taken, context.Cause(ctx)
		}
		done, err := e.endIntent(numbers[i])
		if err != nil {
			return taken, err
		}
		if done {
			taken++
		}
	}
	return taken, nil
}

// takeBackOne ends an intent unless it is under way.
func (e *Engine) takeBackOne(number uint64) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.endIntent(number)
}

// endIntent ends what a person has asked for and what is not under way; e.mu is held.
func (e *Engine) endIntent(number uint64) (ended bool, err error) {
	if s := e.slot; s != nil && (s.Intent == number || s.For == number) {
		return false, nil
	}
	err = e.update(func(c *change) error {
		ended = false
		in, err := getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(number))
		if err != nil || in == nil || in.Resend || in.Service {
			return err
		}
		conv := e.conversations[in.Conversation]
		if conv == nil || conv.State == stateBroken && conv.Founding == number {
			return nil // a successor is founded whatever people want
		}
		ended = true
		return errors.Join(e.withdraw(c, in, conv, errTakenBack), e.released(c, conv.ID))
	})
	return ended && err == nil, err
}
