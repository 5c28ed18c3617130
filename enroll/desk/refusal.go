// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"valise/enroll/desk/call"
	"valise/statement"
)

// A Refusal says why an officer's request is not granted. Reason is a code
// that stays the same between versions, one of package call's or a backend's
// own; Detail is for the officer.
type Refusal struct {
	Reason string
	Detail string
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Detail }

// Refuse returns a Refusal as an error.
func Refuse(reason, detail string) error { return &Refusal{reason, detail} }

// statuses are those of the reasons that are not 403.
var statuses = map[string]int{
	call.ReasonMalformed:              http.StatusBadRequest,
	call.ReasonTooLarge:               http.StatusRequestEntityTooLarge,
	call.ReasonNotFound:               http.StatusNotFound,
	call.ReasonNonce:                  http.StatusBadRequest,
	call.ReasonSession:                http.StatusUnauthorized,
	call.ReasonConflict:               http.StatusConflict,
	call.ReasonRateLimited:            http.StatusTooManyRequests,
	call.ReasonUnavailable:            http.StatusServiceUnavailable,
	string(statement.ReasonMalformed): http.StatusBadRequest,
	string(statement.ReasonTooLarge):  http.StatusRequestEntityTooLarge,
}

// fail answers with a problem document. Refusals go to the audit stream, other
// errors to the log.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, o *call.Officer, err error) {
	refusal := asRefusal(err)
	if refusal == nil {
		s.cfg.Log.Error("desk request failed", "path", clip(r.URL.Path), "error", err.Error())
		refusal = &Refusal{call.ReasonUnavailable, "the authority cannot do this now; try again later"}
	} else {
		s.cfg.Refused(r.Context(), refusal, attrs(r, o)...)
	}
	s.answer(w, refusal)
}

func asRefusal(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if e, ok := errors.AsType[*statement.Error](err); ok {
		return &Refusal{string(e.Reason), e.Err.Error()}
	}
	return nil
}

func (s *Server) answer(w http.ResponseWriter, r *Refusal) {
	status, ok := statuses[r.Reason]
	if !ok {
		status = http.StatusForbidden
	}
	switch r.Reason {
	case call.ReasonSession:
		w.Header().Set("WWW-Authenticate", `Bearer realm="valise desk"`) // RFC 6750, Section 3
	case call.ReasonRateLimited, call.ReasonUnavailable:
		w.Header().Set("Retry-After", "5")
	}
	writeJSON(w, status, call.ContentProblem, &call.Problem{
		Type: "about:blank", Title: strings.ReplaceAll(r.Reason, "_", " "), Status: status, Detail: r.Detail, Reason: r.Reason,
	})
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil { // our own values always marshal
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
