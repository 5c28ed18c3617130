// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"log/slog"

	"valise/enroll/book"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/record"
	"valise/statement"
)

// forward hands what one officer may stop to the gateways, when it is not the record's
// rules but the database that does not take it: damaged, restored and read-only, or
// away. They verify it and obey, and the officer hands it in again later. err is why it
// was not recorded.
func (a *Authority) forward(ctx context.Context, st *statement.Statement, err error) error {
	if a.cfg.Forward == nil || !stops(st.Body.Kind()) || decided(err) {
		return err
	}
	a.cfg.Forward(st.Raw)
	a.cfg.Log.Error("a statement could not be recorded; gateways were told", "kind", string(st.Body.Kind()), "id", st.Head.ID, "error", err.Error())
	eventErr := a.cfg.Event(context.WithoutCancel(ctx), "statement forwarded", slog.String("kind", string(st.Body.Kind())),
		slog.String("officer", st.Signer.Address.String()), slog.String("id", st.Head.ID), slog.String("detail", err.Error()))
	if eventErr != nil {
		a.cfg.Log.Error("audit stream", "error", eventErr.Error())
	}
	return desk.Refuse(call.ReasonUnavailable,
		"the record cannot take this now: gateways that are connected were told, and obey it; hand it in again when the authority is well, or it ends when the authority restarts")
}

// decided reports whether a statement was refused for what it says. It was in time when
// check looked: if it is not for the record, a leaf of a clock that was wrong is dated
// ahead, and so is everything after it.
func decided(err error) bool {
	if _, ok := errors.AsType[*desk.Refusal](err); ok {
		return true
	}
	switch record.ReasonOf(err) {
	case "", record.StatementExpired, record.OfficerExpired:
		return false
	}
	return !errors.Is(err, book.ErrDamaged)
}

func stops(k statement.Kind) bool {
	switch k {
	case statement.KindSuspension, statement.KindRevocation, statement.KindRemoval, statement.KindDismissal:
		return true
	}
	return false
}
