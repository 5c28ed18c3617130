// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	"valise/enroll"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

// A forwarder is the desk's backend that lets no suspension wait for the database:
// one that cannot be recorded at present is told to the gateways as it is, which
// judge it for themselves. The officer still hears that it was not recorded, and
// hands it in again.
type forwarder struct {
	*enroll.Authority
	submit  func(ctx context.Context, raw []byte) (call.Outcome, error)
	forward func(raw []byte)
	trust   *identity.Trust
	root    [32]byte
}

// Submit implements desk.Backend.
func (f *forwarder) Submit(ctx context.Context, raw []byte) (call.Outcome, error) {
	out, err := f.submit(ctx, raw)
	if err == nil || ctx.Err() != nil || errors.As(err, new(*desk.Refusal)) || errors.As(err, new(*statement.Error)) {
		return out, err
	}
	st, verifyErr := statement.Verify(raw, f.trust, f.root, time.Now())
	if verifyErr != nil {
		return out, err
	}
	switch st.Body.Kind() {
	case statement.KindSuspension, statement.KindRevocation:
		f.forward(raw)
	}
	return out, err
}
