// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Paths of the authority's answers about certificates.
const (
	PathCRL  = "/crl"
	PathOCSP = "/ocsp"
)

// Handler answers at PathCRL and PathOCSP and leaves everything else to next. It must
// stand in front of an http.ServeMux, not in one: base64 in an OCSP URL may hold "//",
// which a ServeMux takes for a path to be cleaned.
func (s *Status) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == PathCRL:
			s.serveCRL(w, r)
		case r.URL.Path == PathOCSP, strings.HasPrefix(r.URL.Path, PathOCSP+"/"):
			s.serveOCSP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// serveCRL is RFC 5280's list, as RFC 2585, Section 3 carries it.
func (s *Status) serveCRL(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the list is fetched by GET", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), statusLimit)
	defer cancel()
	list, err := s.CRL(ctx)
	if err != nil {
		s.cfg.Log.Warn("no revocation list", "error", err.Error())
		w.Header().Set("Retry-After", "5")
		http.Error(w, "there is no valid list at the moment; try again later", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("ETag", `"`+strconv.FormatInt(list.Number, 10)+`"`)
	s.write(w, r, "application/pkix-crl", list.DER, list.Until, s.cfg.ListLife)
}

// serveOCSP is RFC 6960, Appendix A.1: GET with the request in the path, in base64, or
// POST with it as the body.
func (s *Status) serveOCSP(w http.ResponseWriter, r *http.Request) {
	var request []byte
	var err error
	switch r.Method {
	case http.MethodGet:
		path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, PathOCSP), "/")
		if len(path) > base64.StdEncoding.EncodedLen(maxOCSPRequest) {
			err = errors.New("too long")
			break
		}
		request, err = base64.StdEncoding.Strict().DecodeString(path)
	case http.MethodPost:
		if r.Header.Get("Content-Type") != "application/ocsp-request" {
			http.Error(w, "the body must be application/ocsp-request", http.StatusUnsupportedMediaType)
			return
		}
		request, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxOCSPRequest))
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "OCSP is asked by GET or POST", http.StatusMethodNotAllowed)
		return
	}
	if err != nil {
		request = nil // answered as malformed
	}
	ctx, cancel := context.WithTimeout(r.Context(), statusLimit)
	defer cancel()
	response, until := s.OCSP(ctx, request)
	s.write(w, r, "application/ocsp-response", response, until, s.cfg.ResponseLife)
}

// write sends an answer that caches may keep until we would sign it anew (RFC 5019,
// Section 6): no longer, because it may cease to be true.
func (s *Status) write(w http.ResponseWriter, r *http.Request, kind string, body []byte, until time.Time, life time.Duration) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	if until.IsZero() {
		h.Set("Cache-Control", "no-store")
	} else {
		age := min(until.Add(-life/2).Sub(s.cfg.Now()), maxCached)
		h.Set("Cache-Control", "public, no-transform, must-revalidate, max-age="+strconv.Itoa(max(0, int(age.Seconds()))))
		h.Set("Expires", until.UTC().Format(http.TimeFormat))
	}
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body)
}
