// SPDX-License-Identifier: Apache-2.0

// Package acme is the enrollment authority's front: RFC 8555 (ACME) with the
// challenge device-attest-01 (draft-ietf-acme-device-attest-09, format "step") and
// external account binding. It translates: it checks what the protocol asks (JWS,
// nonces, URLs, sizes, rates) and asks its Backend to decide.
//
// First call: New, whose Server is an http.Handler for everything below /acme/:
//
//	front, err := acme.New(acme.Config{BaseURL: "https://enroll.interieur.example", Backend: authority, Log: log})
//
// One enrollment is:
//
//	GET  directory                 where everything is
//	HEAD new-nonce                 a nonce; each answer carries the next one
//	POST new-account               JWK and binding by the invitation's key
//	POST new-order                 identifier permanent-identifier = device id
//	POST authorization/ID          (POST-as-GET) the challenge's token
//	POST tpm                       for a TPM only: a credential that it must open
//	POST challenge/ID              {attObj}: the attested key signs token.thumbprint
//	POST order/ID/finalize         {csr}: of the attested key
//	POST order/ID                  (POST-as-GET) until "valid"
//	POST certificate/ID            (POST-as-GET) the chain in PEM, root included
//
// Besides there are key-change (Section 7.3.5) and renewal-info (RFC 9773). revoke-cert
// is there to say who revokes: an officer.
//
// A refusal is a problem document; its member "reason" is the code that also stands
// in the audit stream. Errors that are not refusals are logged, and the applicant
// sees only that it was not their fault.
//
// Never add a route that changes something without a verified JWS and a used nonce.
package acme

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"valise/identity"
	"valise/internal/callers"
	"valise/internal/store/authority"
)

// Backend decides what this front asks. Every method that refuses returns a
// *Refusal; any other error is the authority's own trouble. NewOrder, Attest and
// Finalize use the context's Voucher where they change something.
type Backend interface {
	Activator

	NewNonce() string
	// CheckNonce is UseNonce without a write: a first look.
	CheckNonce(nonce string) error
	UseNonce(ctx context.Context, nonce string) error
	// UseNonceOf is UseNonce for a request that an account's key has signed; it
	// returns the account as it is now.
	UseNonceOf(ctx context.Context, nonce string, account int64) (authority.Account, error)

	// UseNonceNow uses the context's Voucher by itself, and returns the account as it
	// is now.
	UseNonceNow(ctx context.Context, a authority.Account) (authority.Account, error)

	// Register makes an account, or returns the one that this key has already.
	// A nil binding returns only an existing one.
	Register(ctx context.Context, thumbprint string, jwk []byte, b *Binding) (a authority.Account, isNew bool, err error)
	Account(ctx context.Context, id int64) (authority.Account, error)
	Deactivate(ctx context.Context, a authority.Account) error

	NewOrder(ctx context.Context, a authority.Account, device identity.DeviceID) (authority.Order, authority.Authorization, error)
	Order(ctx context.Context, a authority.Account, id string) (authority.Order, authority.Authorization, error)
	Orders(ctx context.Context, a authority.Account, limit int) ([]authority.Order, error)
	Authorization(ctx context.Context, a authority.Account, id string) (authority.Order, authority.Authorization, error)

	// Attest appraises evidence, once. Evidence that is not accepted is no
	// error: the authorization says why.
	Attest(ctx context.Context, a authority.Account, authorization string, evidence []byte) (authority.Authorization, error)
	Finalize(ctx context.Context, a authority.Account, order string, csr []byte) (authority.Order, authority.Authorization, error)
	// Certificate returns a valid order's chain, leaf first, root last.
	Certificate(ctx context.Context, a authority.Account, order string) ([][]byte, error)

	// ChangeKey gives an account another key. If that key has an account, its
	// number comes with the refusal.
	ChangeKey(ctx context.Context, a authority.Account, thumbprint string, jwk []byte) (taken int64, err error)
	// RenewalInfo says when a certificate should be renewed.
	RenewalInfo(ctx context.Context, id CertID) (Window, error)
	// MayReplace refuses an order for a device that is to replace a certificate
	// which is not the account's, not the device's, or replaced already; Replace
	// notes it for an order that was made.
	MayReplace(ctx context.Context, a authority.Account, device identity.DeviceID, id CertID) error
	Replace(ctx context.Context, order string, id CertID) error
}

// A Config says what a Server answers. BaseURL, Backend and Log are required.
type Config struct {
	// BaseURL is what clients call us, like "https://enroll.interieur.example:8443".
	// It is signed in every request, so it must be exactly what they use.
	BaseURL string
	Backend Backend
	Log     *slog.Logger
	// Refused is told of every refusal; it writes the audit stream and counts.
	Refused func(ctx context.Context, r *Refusal, attrs ...slog.Attr)
	// PerSecond and Burst bound the requests of one address; zero means 50 and 200.
	PerSecond float64
	Burst     int
}

// A Server is the front. It is an http.Handler.
type Server struct {
	cfg     Config
	mux     *http.ServeMux
	limiter *callers.Limiter

	accounts *accounts
}

// Paths below the base URL.
const (
	PathDirectory     = "/acme/directory"
	pathNewNonce      = "/acme/new-nonce"
	pathNewAccount    = "/acme/new-account"
	pathNewOrder      = "/acme/new-order"
	pathAccount       = "/acme/account"
	pathOrder         = "/acme/order"
	pathAuthorization = "/acme/authorization"
	pathChallenge     = "/acme/challenge"
	pathCertificate   = "/acme/certificate"
	pathKeyChange     = "/acme/key-change"
	pathRevoke        = "/acme/revoke-cert"
	pathRenewalInfo   = "/acme/renewal-info"
)

// New returns a front for a backend.
func New(cfg Config) (*Server, error) {
	u, err := url.Parse(cfg.BaseURL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("acme: base URL %q is not https://HOST or https://HOST:PORT", cfg.BaseURL)
	}
	if cfg.Backend == nil || cfg.Log == nil {
		return nil, errors.New("acme: backend and log must be given")
	}
	if cfg.PerSecond == 0 {
		cfg.PerSecond = 50
	}
	if cfg.Burst == 0 {
		cfg.Burst = 200
	}
	if cfg.Refused == nil {
		cfg.Refused = func(context.Context, *Refusal, ...slog.Attr) {}
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), limiter: callers.NewLimiter(cfg.PerSecond, cfg.Burst)}
	s.accounts = &accounts{backend: cfg.Backend, known: make(map[int64]*signatory)}
	s.routes()
	return s, nil
}

func (s *Server) routes() {
	s.mux.HandleFunc("GET "+PathDirectory, s.getDirectory)
	s.mux.HandleFunc("GET "+pathNewNonce, s.getNonce) // and HEAD
	s.mux.HandleFunc("POST "+pathNewAccount, s.signed(s.postNewAccount))
	s.mux.HandleFunc("POST "+pathNewOrder, s.signed(s.postNewOrder))
	s.mux.HandleFunc("POST "+pathAccount+"/{id}", s.signed(s.postAccount))
	s.mux.HandleFunc("POST "+pathAccount+"/{id}/orders", s.signed(s.postOrders))
	s.mux.HandleFunc("POST "+pathOrder+"/{id}", s.signed(s.postOrder))
	s.mux.HandleFunc("POST "+pathOrder+"/{id}/finalize", s.signed(s.postFinalize))
	s.mux.HandleFunc("POST "+pathAuthorization+"/{id}", s.signed(s.postAuthorization))
	s.mux.HandleFunc("POST "+pathChallenge+"/{id}", s.signed(s.postChallenge))
	s.mux.HandleFunc("POST "+pathCertificate+"/{id}", s.signed(s.postCertificate))
	s.mux.HandleFunc("POST "+pathTPM, s.signed(s.postTPM))
	s.mux.HandleFunc("POST "+pathKeyChange, s.signed(s.postKeyChange))
	s.mux.HandleFunc("POST "+pathRevoke, s.signed(s.postRevoke))
	s.mux.HandleFunc("GET "+pathRenewalInfo+"/{id}", s.getRenewalInfo)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, Refuse(NotFound, "there is nothing here; ACME begins at "+PathDirectory))
	})
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
	defer cancel()
	r = r.WithContext(ctx)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Link", "<"+s.cfg.BaseURL+PathDirectory+`>;rel="index"`)
	if ok, report := s.limiter.Allow(callers.Origin(r.RemoteAddr).String(), time.Now()); !ok {
		refusal := &Refusal{Reason: RateLimited, Detail: "too many requests from this address; wait a moment"}
		if report {
			s.cfg.Refused(r.Context(), refusal, auditAttrs(r)...)
		}
		s.answer(w, refusal)
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) url(path, id string) string { return s.cfg.BaseURL + path + "/" + id }

func (s *Server) getDirectory(w http.ResponseWriter, _ *http.Request) {
	base := s.cfg.BaseURL
	writeJSON(w, http.StatusOK, "application/json", directory{
		NewNonce: base + pathNewNonce, NewAccount: base + pathNewAccount, NewOrder: base + pathNewOrder,
		KeyChange: base + pathKeyChange, RevokeCert: base + pathRevoke, RenewalInfo: base + pathRenewalInfo,
		TPM:  base + pathTPM,
		Meta: directoryMeta{ExternalAccountRequired: true},
	})
}

// getNonce is RFC 8555, Section 7.2: 200 for HEAD, 204 for GET.
func (s *Server) getNonce(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Replay-Nonce", s.cfg.Backend.NewNonce())
	if r.Method == http.MethodGet {
		w.WriteHeader(http.StatusNoContent)
	}
}

// fail answers with a problem document. Refusals go to the audit stream, other
// errors to the log.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	refusal := asRefusal(err)
	if refusal == nil {
		s.cfg.Log.Error("request failed", "path", r.URL.Path, "error", err.Error())
		refusal = &Refusal{Reason: Unavailable, Detail: "the authority cannot do this now; try again later"}
	} else {
		s.cfg.Refused(r.Context(), refusal, auditAttrs(r)...)
	}
	s.answer(w, refusal)
}

func (s *Server) answer(w http.ResponseWriter, r *Refusal) {
	p := problemOf(r)
	if after := s.retryAfter(r.Reason); after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(after.Seconds())))
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

// retryAfter is when a refused request is worth another attempt (RFC 8555, Section
// 6.6); zero: never as it is.
func (s *Server) retryAfter(reason Reason) time.Duration {
	switch reason {
	case RateLimited: // whole seconds until one more request is granted
		return max(time.Second, time.Duration(math.Ceil(1/s.cfg.PerSecond))*time.Second)
	case TooManyOrders:
		return ordersRetry
	case Unavailable, HSMUnavailable:
		return 5 * time.Second
	}
	return 0
}

func auditAttrs(r *http.Request) []slog.Attr {
	attrs := []slog.Attr{slog.String("remote", r.RemoteAddr), slog.String("path", clip(r.URL.Path))}
	if a, ok := r.Context().Value(accountKey{}).(*authority.Account); ok && a.ID != 0 {
		attrs = append(attrs, slog.String("address", a.Address.String()), slog.Int64("account", a.ID))
	}
	return attrs
}

func clip(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// accountKey finds the *authority.Account that signed(…) puts into the context
// before it knows whose it is.
type accountKey struct{}

// A call is a request whose JWS is verified and whose nonce is used.
type call struct {
	account    authority.Account // zero for new-account
	jwk        *jose.JSONWebKey  // new-account only
	thumbprint string            // new-account only
	payload    []byte            // empty: POST-as-GET (RFC 8555, Section 6.3)
	id         string            // from the path
}
