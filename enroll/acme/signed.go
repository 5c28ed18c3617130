// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"valise/internal/store/authority"
)

type action func(w http.ResponseWriter, r *http.Request, c *call) error

// signed runs an action for a request that is authentic, fresh and meant for this
// URL (RFC 8555, Sections 6.2 to 6.5).
func (s *Server) signed(do action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Replay-Nonce", s.cfg.Backend.NewNonce())
		var who authority.Account
		r = r.WithContext(context.WithValue(r.Context(), accountKey{}, &who))
		c, err := s.authenticate(w, r)
		if c != nil {
			who = c.account // also of a request that is refused
		}
		if err == nil {
			err = do(w, r, c)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	}
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
	c.account, c.payload, err = s.accounts.admit(r.Context(), m, id)
	return c, err
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

// limiter bounds the rate of each address; IPv6 visitors count by /64, which is
// what one of them is given.
type limiter struct {
	perSecond rate.Limit
	burst     int

	mu       sync.Mutex
	visitors map[netip.Prefix]*visitor // guarded by mu
}

type visitor struct {
	rate *rate.Limiter
	told time.Time // when a refusal was last reported
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{perSecond: rate.Limit(perSecond), burst: burst, visitors: make(map[netip.Prefix]*visitor)}
}

// allow decides, and says whether a refusal is to be reported: one a minute for each
// address, so that a flood of requests is not a flood of audit lines.
func (l *limiter) allow(remote string, now time.Time) (ok, report bool) {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	var key netip.Prefix // all that have no address share one
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap().WithZone("")
		bits := 32
		if addr.Is6() {
			bits = 64
		}
		key, _ = addr.Prefix(bits)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.visitors[key]
	if v == nil {
		if len(l.visitors) >= maxVisitors {
			clear(l.visitors)
		}
		v = &visitor{rate: rate.NewLimiter(l.perSecond, l.burst)}
		l.visitors[key] = v
	}
	if v.rate.AllowN(now, 1) {
		return true, false
	}
	if now.Sub(v.told) < reportEvery {
		return false, false
	}
	v.told = now
	return false, true
}
