// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

const minSecret = 32

// A token is expiry (8) ‖ key (32) ‖ random (16) ‖ HMAC-SHA-256 (32) in
// base64url: it names the officer and nothing else, and is checked without a
// table, so that every process of the authority accepts it.
const (
	tokenBody = 8 + sha256.Size + 16
	tokenSize = tokenBody + sha256.Size
)

var errSession = &Refusal{call.ReasonSession, "the session is over or was never opened: sign in again"}

func (s *Server) getNonce(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, "application/json", call.Nonce{Nonce: s.cfg.Backend.NewNonce(), Server: s.cfg.URL})
}

// postSession turns a session statement into a token.
func (s *Server) postSession(w http.ResponseWriter, r *http.Request) {
	session, err := s.open(w, r)
	if err != nil {
		s.fail(w, r, nil, err)
		return
	}
	writeJSON(w, http.StatusOK, "application/json", session)
}

func (s *Server) open(w http.ResponseWriter, r *http.Request) (*call.Session, error) {
	raw, err := readBody(w, r, call.ContentStatement, maxSession)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	signed, err := statement.Verify(raw, s.cfg.Trust, s.cfg.Root, now)
	if err != nil {
		return nil, err
	}
	body, ok := signed.Body.(*statement.Session)
	if !ok {
		return nil, Refuse(call.ReasonMalformed, "a "+string(signed.Body.Kind())+" opens no session")
	}
	if body.Server != s.cfg.URL {
		return nil, Refuse(call.ReasonServer, "the session is for another desk than "+s.cfg.URL)
	}
	if err := s.cfg.Backend.CheckNonce(body.Nonce); err != nil {
		return nil, Refuse(call.ReasonNonce, "the nonce is unknown, expired or was used before")
	}
	officer, err := s.standing(r.Context(), signed.Signer.Key)
	if err != nil {
		return nil, err
	}
	if officer.Role != signed.Signer.Role || officer.Address != signed.Signer.Address {
		return nil, Refuse(call.ReasonNotOfficer, "the card's certificate is not the one of the record")
	}
	if err := s.cfg.Backend.UseNonce(r.Context(), body.Nonce); err != nil {
		if errors.Is(err, ErrNonce) {
			return nil, Refuse(call.ReasonNonce, "the nonce was used before")
		}
		return nil, fmt.Errorf("use the nonce: %w", err)
	}
	if err := s.cfg.Event(r.Context(), "desk opened", attrs(r, officer)...); err != nil {
		return nil, err
	}
	expires := now.Add(SessionLife).UTC().Truncate(time.Second)
	return &call.Session{Token: s.token(officer.Key, expires), Expires: expires, Officer: *officer}, nil
}

// standing asks the record who holds a key.
func (s *Server) standing(ctx context.Context, key identity.DeviceID) (*call.Officer, error) {
	officer, err := s.cfg.Backend.Officer(ctx, key)
	if err != nil {
		return nil, err
	}
	if officer.Key != key {
		return nil, fmt.Errorf("asked for officer %s, the record answers with %s", key, officer.Key)
	}
	return &officer, nil
}

func (s *Server) token(key identity.DeviceID, expires time.Time) string {
	body := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix()))
	body = append(body, key[:]...)
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	body = append(body, random...)
	return base64.RawURLEncoding.EncodeToString(append(body, s.tag(body)...))
}

func (s *Server) tag(body []byte) []byte {
	mac := hmac.New(sha256.New, s.cfg.Secret())
	mac.Write([]byte("valise desk token 1\x00"))
	mac.Write(body)
	return mac.Sum(nil)
}

// officer finds out whose token a request carries (RFC 6750, Section 2.1), and
// whether that officer is in good standing now.
func (s *Server) officer(r *http.Request) (*call.Officer, error) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || len(text) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return nil, errSession
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != tokenSize || !hmac.Equal(raw[tokenBody:], s.tag(raw[:tokenBody])) {
		return nil, errSession
	}
	if expires := binary.BigEndian.Uint64(raw); s.cfg.Now().Unix() >= int64(expires) {
		return nil, errSession
	}
	return s.standing(r.Context(), identity.DeviceID(raw[8:8+sha256.Size]))
}

// readBody reads a bounded body of one media type.
func readBody(w http.ResponseWriter, r *http.Request, want string, most int64) ([]byte, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != want {
		return nil, Refuse(call.ReasonMalformed, "the content type must be "+want)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, Refuse(call.ReasonTooLarge, fmt.Sprintf("the body is larger than %d octets", most))
	}
	if err != nil {
		return nil, Refuse(call.ReasonMalformed, "the body did not arrive whole and in time")
	}
	return body, nil
}

// attrs are what the audit stream is told of a request.
func attrs(r *http.Request, o *call.Officer) []slog.Attr {
	list := []slog.Attr{slog.String("path", clip(r.URL.Path)), slog.String("remote", r.RemoteAddr)}
	if o != nil {
		list = append(list, slog.String("officer", o.Address.String()), slog.String("key", o.Key.String()), slog.String("role", string(o.Role)))
	}
	return list
}

// clip bounds hostile text in the audit stream.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
