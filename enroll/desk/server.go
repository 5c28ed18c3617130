// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/callers"
)

// A Config says what a Server answers. URL, Trust, Root, Backend and Log are
// required.
type Config struct {
	// URL is what officers call this authority, https://HOST or
	// https://HOST:PORT. It is signed in every session.
	URL string
	// Trust holds Root, and Root is the SHA-256 of the authority's root.
	Trust   *identity.Trust
	Root    [32]byte
	Backend Backend
	Log     *slog.Logger

	// Secret authenticates tokens; processes that share one accept each other's.
	// It returns at least 32 octets, and may change: then sessions end. Nil means
	// a random one.
	Secret func() []byte
	// Event writes what officers did to the audit stream; an error refuses the
	// request. Refused is told of every refusal. Both may be nil.
	Event   func(ctx context.Context, what string, attrs ...slog.Attr) error
	Refused func(ctx context.Context, r *Refusal, attrs ...slog.Attr)
	// PerSecond and Burst bound the requests of one address, or of one officer;
	// zero means 10 and 100.
	PerSecond float64
	Burst     int
	// Patience is how long a request's body may take to arrive; zero means 10 s.
	Patience time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Server is the desk. It is an http.Handler for everything below /desk/v1/.
type Server struct {
	cfg     Config
	mux     *http.ServeMux
	limiter *callers.Limiter
}

// New returns a desk for a backend.
func New(cfg Config) (*Server, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != cfg.URL {
		return nil, fmt.Errorf("desk: URL %q is not https://HOST or https://HOST:PORT", cfg.URL)
	}
	if cfg.Trust == nil || cfg.Root == [32]byte{} || cfg.Backend == nil || cfg.Log == nil {
		return nil, errors.New("desk: trust, root, backend and log must be given")
	}
	if cfg.Secret == nil {
		secret := make([]byte, minSecret)
		_, _ = rand.Read(secret) // never fails
		cfg.Secret = func() []byte { return secret }
	}
	if len(cfg.Secret()) < minSecret {
		return nil, fmt.Errorf("desk: the secret takes at least %d octets", minSecret)
	}
	if cfg.PerSecond == 0 {
		cfg.PerSecond = 10
	}
	if cfg.Burst == 0 {
		cfg.Burst = 100
	}
	if cfg.Event == nil {
		cfg.Event = func(context.Context, string, ...slog.Attr) error { return nil }
	}
	if cfg.Refused == nil {
		cfg.Refused = func(context.Context, *Refusal, ...slog.Attr) {}
	}
	if cfg.Patience == 0 {
		cfg.Patience = bodyLimit
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), limiter: callers.NewLimiter(cfg.PerSecond, cfg.Burst)}
	s.routes()
	return s, nil
}

// routes lists every request there is. Those under reading want a token; only
// submit and apply hand something in.
func (s *Server) routes() {
	s.mux.HandleFunc("GET "+call.PathNonce, s.getNonce)
	s.mux.HandleFunc("POST "+call.PathSession, s.postSession)
	s.mux.HandleFunc("GET "+call.PathRequests, s.reading(s.getRequests))
	s.mux.HandleFunc("GET "+call.PathRequests+"/{id}", s.reading(s.getRequest))
	s.mux.HandleFunc("GET "+call.PathRoster, s.reading(s.getRoster))
	s.mux.HandleFunc("GET "+call.PathRoster+"/{address}", s.reading(s.getPerson))
	s.mux.HandleFunc("GET "+call.PathDevices+"/{kind}/{name}", s.reading(s.getDevices))
	s.mux.HandleFunc("GET "+call.PathRules, s.reading(s.getRules))
	s.mux.HandleFunc("GET "+call.PathProfiles, s.reading(s.getProfiles))
	s.mux.HandleFunc("GET "+call.PathOfficers, s.reading(s.getOfficers))
	s.mux.HandleFunc("GET "+call.PathGateways, s.reading(s.getGateways))
	s.mux.HandleFunc("GET "+call.PathProposals, s.reading(s.getProposals))
	s.mux.HandleFunc("GET "+call.PathProposals+"/{digest}", s.reading(s.getProposal))
	s.mux.HandleFunc("GET "+call.PathStandings, s.reading(s.getStandings))
	s.mux.HandleFunc("GET "+call.PathLedger, s.reading(s.getLedger))
	s.mux.HandleFunc("POST "+call.PathStatements, s.writing(s.postStatement))
	s.mux.HandleFunc("POST "+call.PathNonces, s.writing(s.postNonce))
	s.mux.HandleFunc("POST "+call.PathApplications, s.writing(s.postApplication))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, nil, Refuse(call.ReasonNotFound, "there is nothing here, or not with this method"))
	})
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
	defer cancel()
	r = r.WithContext(ctx)
	// Who sends or takes slowly loses the connection. Writers that have no
	// deadlines, as in some tests, have their own bounds.
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetReadDeadline(now.Add(s.cfg.Patience))
	_ = control.SetWriteDeadline(now.Add(answerLimit))
	w.Header().Set("Cache-Control", "no-store")
	if err := s.limit(r, callers.Origin(r.RemoteAddr).String(), nil); err != nil {
		s.answer(w, err)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// limit counts a request for a caller; a refusal is reported once a minute.
func (s *Server) limit(r *http.Request, caller string, o *call.Officer) *Refusal {
	ok, report := s.limiter.Allow(caller, s.cfg.Now())
	if ok {
		return nil
	}
	refusal := &Refusal{call.ReasonRateLimited, "too many requests; wait a moment"}
	if report {
		s.cfg.Refused(r.Context(), refusal, attrs(r, o)...)
	}
	return refusal
}

// reading lets a request through whose token is an officer's in good standing,
// whatever the role.
func (s *Server) reading(f func(r *http.Request) (any, error)) http.HandlerFunc {
	return s.authenticated(func(r *http.Request, _ *call.Officer) (any, error) { return f(r) })
}

// writing lets through those who may decide: not auditors.
func (s *Server) writing(f func(r *http.Request, o *call.Officer) (any, error)) http.HandlerFunc {
	return s.authenticated(func(r *http.Request, o *call.Officer) (any, error) {
		if o.Role != identity.RoleOfficer && o.Role != identity.RoleAdministrator {
			return nil, Refuse(call.ReasonRole, fmt.Sprintf("%s is %s: they read, and decide nothing", o.Address, o.Role))
		}
		return f(r, o)
	})
}

func (s *Server) authenticated(f func(r *http.Request, o *call.Officer) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		officer, err := s.officer(r)
		if err != nil {
			s.fail(w, r, nil, err)
			return
		}
		if refusal := s.limit(r, "officer "+officer.Key.String(), officer); refusal != nil {
			s.answer(w, refusal)
			return
		}
		answer, err := f(r, officer)
		if err != nil {
			s.fail(w, r, officer, err)
			return
		}
		writeJSON(w, http.StatusOK, "application/json", answer)
	}
}
