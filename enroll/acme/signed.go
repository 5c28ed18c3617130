// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"valise/internal/store/authority"
)

type action func(w http.ResponseWriter, r *http.Request, c *call) error

// signed runs an action for a request that is authentic, fresh and meant for this
// URL (RFC 8555, Sections 6.2 to 6.5).
func (s *Server) signed(do action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Replay-Nonce", s.cfg.Backend.NewNonce())
		var who authority.Account
		voucher := new(Voucher)
		ctx := context.WithValue(r.Context(), accountKey{}, &who)
		ctx = context.WithValue(ctx, wantedKey{}, wanted(r))
		r = r.WithContext(context.WithValue(ctx, voucherKey{}, voucher))
		c, err := s.authenticate(w, r)
		if c != nil {
			who = c.account // also of a request that is refused
		}
		if err == nil {
			err = s.spent(r.Context(), voucher, do(w, r, c))
		}
		if err != nil {
			s.fail(w, r, err)
		}
	}
}

// A Voucher is the nonce of a request that changes something: the Backend uses it in
// the transaction that makes the change, if the account still is then what it was when
// the signature was verified. Its zero value is of a request whose nonce is used
// already.
type Voucher struct {
	Nonce      string
	Thumbprint string // of the key that signed the request
	account    int64
}

// Good refuses an account that is not in good standing any more, or whose key is not
// the one that signed the request.
func (v *Voucher) Good(now *authority.Account) error {
	if err := standing(now); err != nil {
		return err
	}
	if v.Nonce != "" && now.Thumbprint != v.Thumbprint {
		return errFormerKey
	}
	return nil
}

var errFormerKey = Refuse(BadSignature, "the JWS is signed by a key that the account had before")

// Used says that the nonce was used with a change that is in the database.
func (v *Voucher) Used() { v.Nonce = "" }

type voucherKey struct{}

// VoucherOf returns the nonce that the request of a context has yet to use.
func VoucherOf(ctx context.Context) *Voucher {
	if v, ok := ctx.Value(voucherKey{}).(*Voucher); ok {
		return v
	}
	return new(Voucher)
}

// spent uses the nonce of a request that was refused before anything was changed: no
// nonce is good for a second request, whatever became of the first. What is wrong with
// the nonce, or with the account, goes first.
func (s *Server) spent(ctx context.Context, v *Voucher, err error) error {
	if v.Nonce == "" {
		return err
	}
	nonce := v.Nonce
	now, nonceErr := s.cfg.Backend.UseNonceOf(ctx, nonce, v.account)
	if nonceErr == nil {
		nonceErr = v.Good(&now)
	}
	v.Used()
	if nonceErr != nil {
		s.accounts.forget(now.ID)
		return nonceErr
	}
	return err
}

func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) (*call, error) {
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	m, err := parseMessage(body)
	if err != nil {
		return nil, err
	}
	// Section 6.4: the url is the one that the request went to.
	if m.url != s.cfg.BaseURL+r.URL.EscapedPath() || r.URL.RawQuery != "" {
		return nil, Refuse(BadURL, "the url in the protected header is not the URL of this request")
	}
	// Section 6.5: look at the nonce before the costly signature, use it after.
	if s.cfg.Backend.CheckNonce(m.nonce) != nil {
		return nil, errBadNonce
	}
	c := &call{id: r.PathValue("id")}
	if r.URL.Path == pathNewAccount {
		return c, s.newcomer(r, m, c)
	}
	// Section 6.2: everything else is signed by the account's key.
	if m.kid == "" {
		return nil, Refuse(MalformedRequest, "this request is signed with the account's kid, not a jwk")
	}
	id, err := s.accountID(m.kid)
	if err != nil {
		return nil, err
	}
	c.account, c.payload, err = s.accounts.admit(r.Context(), m, id, later(r))
	return c, err
}

// later tells whether a request's nonce is used with the change that it asks for.
func later(r *http.Request) bool {
	return r.URL.Path == pathNewOrder || strings.HasPrefix(r.URL.Path, pathChallenge+"/") ||
		strings.HasPrefix(r.URL.Path, pathOrder+"/") && strings.HasSuffix(r.URL.Path, "/finalize")
}

// Wanted is what a signed request's path names: an order, or an authorization. A
// Backend may look it up where it uses the nonce, and keep it in Found for the method
// that is called next in the same context.
type Wanted struct {
	Order, Authorization string
	Found                *authority.Facts
}

type wantedKey struct{}

// Wants returns what the request of a context names, or nil.
func Wants(ctx context.Context) *Wanted {
	w, _ := ctx.Value(wantedKey{}).(*Wanted)
	return w
}

func wanted(r *http.Request) *Wanted {
	id, in := r.PathValue("id"), func(path string) bool { return strings.HasPrefix(r.URL.Path, path+"/") }
	switch {
	case id == "":
		return nil
	case in(pathOrder), in(pathCertificate):
		return &Wanted{Order: id}
	case in(pathAuthorization), in(pathChallenge):
		return &Wanted{Authorization: id}
	}
	return nil
}

var errBadNonce = Refuse(BadNonce, "the nonce is unknown, expired or was used before")

// newcomer verifies a request for an account by the key in it (Section 6.2).
func (s *Server) newcomer(r *http.Request, m *message, c *call) (err error) {
	if m.jwk == nil {
		return Refuse(MalformedRequest, "new-account is signed with a jwk, not a kid")
	}
	c.jwk = m.jwk
	if c.thumbprint, err = thumbprint(m.jwk); err != nil {
		return err
	}
	if c.payload, err = m.verify(m.jwk); err != nil {
		return err
	}
	return s.cfg.Backend.UseNonce(r.Context(), m.nonce)
}

func (s *Server) accountID(kid string) (int64, error) {
	text, ok := strings.CutPrefix(kid, s.cfg.BaseURL+pathAccount+"/")
	id, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || id < 1 || strconv.FormatInt(id, 10) != text {
		return 0, Refuse(UnknownAccount, "the kid is not the URL of an account of this authority")
	}
	return id, nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/jose+json" {
		return nil, Refuse(MalformedRequest, "the content type must be application/jose+json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, Refuse(MalformedRequest, "the body is larger than "+strconv.Itoa(maxBody)+" bytes")
	}
	if err != nil {
		return nil, Refuse(MalformedRequest, "the body could not be read")
	}
	return body, nil
}
