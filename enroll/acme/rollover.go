// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/go-jose/go-jose/v4"
)

// keyChange is the payload of RFC 8555, Section 7.3.5's inner JWS.
type keyChange struct {
	Account string          `json:"account"`
	OldKey  json.RawMessage `json:"oldKey"`
}

var keyChangeNames = []string{"account", "oldKey"}

// postKeyChange is RFC 8555, Section 7.3.5: the old key signs a request whose payload
// the new key has signed, so both agree. The outer signature is verified already.
func (s *Server) postKeyChange(w http.ResponseWriter, r *http.Request, c *call) error {
	inner, err := parseInner(c.payload)
	if err != nil {
		return err
	}
	// "Check that the inner JWS verifies using the key in its jwk field": a key
	// that nobody holds must not lock the account.
	payload, err := inner.verify(inner.jwk)
	if err != nil {
		return err
	}
	if inner.url != s.cfg.BaseURL+pathKeyChange {
		return Refuse(BadURL, "the inner JWS is not for this URL")
	}
	var in keyChange
	if err := errors.Join(exactNames(payload, keyChangeNames), lax(payload, &in)); err != nil {
		return Refuse(MalformedRequest, "the inner payload is not an object with account and oldKey")
	}
	if in.Account != s.url(pathAccount, strconv.FormatInt(c.account.ID, 10)) {
		return Refuse(NotYours, "the inner payload names another account than the one that signed")
	}
	var old jose.JSONWebKey
	if err := old.UnmarshalJSON(in.OldKey); err != nil || !old.Valid() || !old.IsPublic() {
		return Refuse(MalformedRequest, "oldKey is not a public key")
	}
	if sum, err := thumbprint(&old); err != nil || sum != c.account.Thumbprint {
		return Refuse(MalformedRequest, "oldKey is not the account's present key")
	}
	jwk, err := inner.jwk.Public().MarshalJSON()
	if err != nil {
		return err
	}
	sum, err := thumbprint(inner.jwk)
	if err != nil {
		return err
	}
	taken, err := s.cfg.Backend.ChangeKey(r.Context(), c.account, sum, jwk)
	if taken != 0 {
		w.Header().Set("Location", s.url(pathAccount, strconv.FormatInt(taken, 10)))
	}
	if err != nil {
		return err
	}
	s.writeAccount(w, http.StatusOK, &c.account)
	return nil
}

// parseInner reads the inner JWS: like an outer one, with a jwk and without a nonce.
func parseInner(raw []byte) (*message, error) {
	h, f, err := parseHeader(raw)
	if err != nil {
		return nil, err
	}
	if h.Alg != string(jose.ES256) && h.Alg != string(jose.ES384) {
		return nil, Refuse(BadAlgorithm, "account keys sign with ES256 or ES384")
	}
	if h.KID != nil || len(h.JWK) == 0 || h.Nonce != nil || h.URL == nil {
		return nil, Refuse(MalformedRequest, "the inner JWS needs a jwk and a url in its protected header, and neither kid nor nonce")
	}
	jws, err := jose.ParseSignedCompact(f.compact(), signatures)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, Refuse(MalformedRequest, "the inner JWS is malformed")
	}
	m := &message{jws: jws, alg: h.Alg, url: *h.URL, jwk: jws.Signatures[0].Protected.JSONWebKey}
	return m, checkAccountKey(m.jwk, m.alg)
}

// postRevoke is RFC 8555, Section 7.6, where the answer is always no: what counts is
// an officer's signed statement, and one officer can make it at any hour.
func (s *Server) postRevoke(http.ResponseWriter, *http.Request, *call) error {
	return Refuse(RevocationByOfficers, "certificates are suspended and revoked by an officer's signed statement: call your security officer, who can do it at once")
}
