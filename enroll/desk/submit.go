// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"
	"log/slog"
	"net/http"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

// postStatement hands a statement in. The token says only who may talk here:
// the backend verifies the statement from its bytes.
func (s *Server) postStatement(r *http.Request, o *call.Officer) (any, error) {
	raw, err := readBody(nil, r, call.ContentStatement, maxStatement)
	if err != nil {
		return nil, err
	}
	signed, err := statement.Verify(raw, s.cfg.Trust, s.cfg.Root, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	if signed.Body.Kind() == statement.KindSession {
		return nil, Refuse(call.ReasonMalformed, "a session decides nothing")
	}
	if signed.Signer.Key != o.Key {
		return nil, Refuse(call.ReasonNotOfficer, fmt.Sprintf("%s signed this, and %s hands it in", signed.Signer.Address, o.Address))
	}
	outcome, err := s.cfg.Backend.Submit(r.Context(), raw)
	if err != nil {
		return nil, err
	}
	return outcome, s.cfg.Event(r.Context(), "statement handed in", append(attrs(r, o),
		slog.String("kind", string(signed.Body.Kind())), slog.String("id", signed.Head.ID), slog.String("state", outcome.State))...)
}

// postNonce draws a nonce for an application; only who may appoint needs one.
func (s *Server) postNonce(r *http.Request, o *call.Officer) (any, error) {
	if err := administrates(o); err != nil {
		return nil, err
	}
	nonce, err := s.cfg.Backend.Nonce(r.Context())
	return call.Nonce{Nonce: nonce, Server: s.cfg.URL}, err
}

// postApplication has an applicant's file appraised.
func (s *Server) postApplication(r *http.Request, o *call.Officer) (any, error) {
	if err := administrates(o); err != nil {
		return nil, err
	}
	file, err := readBody(nil, r, "application/json", maxApplication)
	if err != nil {
		return nil, err
	}
	return s.cfg.Backend.Application(r.Context(), file)
}

func administrates(o *call.Officer) error {
	if o.Role != identity.RoleAdministrator {
		return Refuse(call.ReasonRole, fmt.Sprintf("%s is %s: appointments are for administrators", o.Address, o.Role))
	}
	return nil
}
