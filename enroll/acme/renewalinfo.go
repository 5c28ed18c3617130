// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A CertID names a certificate (RFC 9773, Section 4.1) by its authority key
// identifier and its serial number, which is the contents of the DER INTEGER.
type CertID struct {
	KeyID  []byte
	Serial []byte
}

// String writes base64url(KeyID) "." base64url(Serial).
func (id CertID) String() string {
	return base64.RawURLEncoding.EncodeToString(id.KeyID) + "." + base64.RawURLEncoding.EncodeToString(id.Serial)
}

// ParseCertID reads what String writes, and nothing else. A serial number is
// positive and as short as DER allows (X.690, Section 8.3.2).
func ParseCertID(s string) (CertID, error) {
	malformed := Refuse(MalformedRequest, "the certificate's identifier is not base64url(key identifier).base64url(serial number)")
	key, serial, found := strings.Cut(s, ".")
	if !found || len(s) > maxCertID {
		return CertID{}, malformed
	}
	var id CertID
	var err1, err2 error
	id.KeyID, err1 = base64.RawURLEncoding.Strict().DecodeString(key)
	id.Serial, err2 = base64.RawURLEncoding.Strict().DecodeString(serial)
	if err1 != nil || err2 != nil || id.String() != s || len(id.KeyID) == 0 || len(id.Serial) == 0 {
		return CertID{}, malformed
	}
	if first := id.Serial[0]; first >= 0x80 || first == 0 && (len(id.Serial) == 1 || id.Serial[1] < 0x80) {
		return CertID{}, malformed
	}
	return id, nil
}

// A Window says when a certificate should be renewed: at a moment between Start and
// End that the client draws, and at once when End has passed.
type Window struct{ Start, End time.Time }

// renewalInfo is RFC 9773, Section 4.2's.
type renewalInfo struct {
	SuggestedWindow struct {
		Start string `json:"start"`
		End   string `json:"end"`
	} `json:"suggestedWindow"`
}

// getRenewalInfo is RFC 9773, Section 4: open to everybody, because it says nothing
// that the certificate does not.
func (s *Server) getRenewalInfo(w http.ResponseWriter, r *http.Request) {
	id, err := ParseCertID(r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	window, err := s.cfg.Backend.RenewalInfo(r.Context(), id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var out renewalInfo
	out.SuggestedWindow.Start, out.SuggestedWindow.End = stamp(window.Start), stamp(window.End)
	w.Header().Set("Retry-After", strconv.Itoa(int(renewalInfoEvery.Seconds()))) // Section 4.3
	writeJSON(w, http.StatusOK, jsonType, out)
}
