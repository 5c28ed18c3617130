// SPDX-License-Identifier: Apache-2.0

package call

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"valise/identity"
	"valise/statement"
)

const (
	// maxAnswer bounds what the desk may send: a page of the ledger in base64.
	maxAnswer = 16 << 20

	// patience bounds one call.
	patience = time.Minute

	// waitFor is how long a reader waits that asked too much, maxWaits how often.
	waitFor  = 300 * time.Millisecond
	maxWaits = 20
)

// ErrRoot is returned when the server is not the authority that the settings
// pin.
var ErrRoot = errors.New("this is not the authority that the settings pin: stop, and find out who answers")

// ErrUnreachable is returned when nobody answers.
var ErrUnreachable = errors.New("the desk cannot be reached")

// Unreachable reports whether an error of a Client means that the desk does not
// work now, rather than that it refuses.
func Unreachable(err error) bool {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.Reason == ReasonUnavailable
	}
	return errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrRoot)
}

// A Client talks to one desk. It is for one goroutine.
type Client struct {
	URL     string   // https://HOST or https://HOST:PORT
	Root    [32]byte // SHA-256 of the authority's root, which the server's chain must end in
	Session Session  // from Open, or from an earlier run

	// HTTP is the connection; nil means one that pins Root.
	HTTP *http.Client
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (c *Client) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// Opened reports whether there is a session that has not run out.
func (c *Client) Opened() bool {
	return c.Session.Token != "" && c.now().Before(c.Session.Expires)
}

// Open opens a session; sign has the officer's card sign the body.
func (c *Client) Open(ctx context.Context, sign func(*statement.Session) ([]byte, error)) error {
	var nonce Nonce
	if err := c.get(ctx, PathNonce, &nonce); err != nil {
		return err
	}
	// The server's name is ours, not what it says: another desk cannot have a
	// session made for itself.
	raw, err := sign(&statement.Session{Nonce: nonce.Nonce, Server: c.URL})
	if err != nil {
		return err
	}
	return c.post(ctx, PathSession, ContentStatement, raw, &c.Session)
}

// Submit hands a statement in.
func (c *Client) Submit(ctx context.Context, raw []byte) (o Outcome, err error) {
	return o, c.post(ctx, PathStatements, ContentStatement, raw, &o)
}

// Requests lists what waits for approvals.
func (c *Client) Requests(ctx context.Context) ([]Request, error) {
	return list[Request](ctx, c, PathRequests)
}

// Request returns one request with everything that is known of it.
func (c *Client) Request(ctx context.Context, id string) (r Request, err error) {
	return r, c.get(ctx, PathRequests+"/"+url.PathEscape(id), &r)
}

// Roster calls each with all people, in the order of their addresses.
func (c *Client) Roster(ctx context.Context, each func(*Person) error) error {
	after := ""
	for {
		var page List[Person]
		if err := c.get(ctx, PathRoster+"?after="+url.QueryEscape(after), &page); err != nil {
			return err
		}
		for i := range page.List {
			if err := each(&page.List[i]); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		if page.Next <= after {
			return errors.New("the desk's list of people runs in a circle")
		}
		after = page.Next
	}
}

// Person returns one person with their devices.
func (c *Client) Person(ctx context.Context, a identity.Address) (p Person, err error) {
	return p, c.get(ctx, PathRoster+"/"+url.PathEscape(a.String()), &p)
}

// Devices finds the devices behind a target.
func (c *Client) Devices(ctx context.Context, kind, name string) ([]identity.DeviceID, error) {
	return list[identity.DeviceID](ctx, c, PathDevices+"/"+url.PathEscape(kind)+"/"+url.PathEscape(name))
}

// Rules returns endorsements and appraisal policy.
func (c *Client) Rules(ctx context.Context) (r Rules, err error) { return r, c.get(ctx, PathRules, &r) }

// Profiles lists the profiles in force.
func (c *Client) Profiles(ctx context.Context) ([]Profile, error) {
	return list[Profile](ctx, c, PathProfiles)
}

// Officers lists everybody who has or had a role.
func (c *Client) Officers(ctx context.Context) ([]Officer, error) {
	return list[Officer](ctx, c, PathOfficers)
}

// Proposals lists what waits for another signature; long bodies are left out.
func (c *Client) Proposals(ctx context.Context) ([]Proposal, error) {
	return list[Proposal](ctx, c, PathProposals)
}

// Proposal returns one, with its body.
func (c *Client) Proposal(ctx context.Context, digest string) (p Proposal, err error) {
	return p, c.get(ctx, PathProposals+"/"+url.PathEscape(digest), &p)
}

// Standings lists suspensions and revocations in force.
func (c *Client) Standings(ctx context.Context) ([]Standing, error) {
	return list[Standing](ctx, c, PathStandings)
}

// Items returns leaves of the ledger from an index on: at least one, unless
// there is none.
func (c *Client) Items(ctx context.Context, from int64) (i Items, err error) {
	return i, c.get(ctx, fmt.Sprintf("%s?from=%d", PathLedger, from), &i)
}

// ApplicationNonce draws a nonce for an applicant.
func (c *Client) ApplicationNonce(ctx context.Context) (n Nonce, err error) {
	return n, c.post(ctx, PathNonces, "application/json", nil, &n)
}

// Application has an applicant's file appraised.
func (c *Client) Application(ctx context.Context, file []byte) (a Application, err error) {
	return a, c.post(ctx, PathApplications, "application/json", file, &a)
}

func list[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var l List[T]
	err := c.get(ctx, path, &l)
	return l.List, err
}

// get reads, and waits where the desk asks for it: a long roster or record takes
// more pages than it gives out at once.
func (c *Client) get(ctx context.Context, path string, into any) error {
	for waits := 0; ; waits++ {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+path, nil)
		if err != nil {
			return err
		}
		err = c.do(r, into)
		p, refused := errors.AsType[*Problem](err)
		if !refused || p.Reason != ReasonRateLimited || waits == maxWaits {
			return err
		}
		select {
		case <-time.After(waitFor):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) post(ctx context.Context, path, contentType string, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", contentType)
	return c.do(r, into)
}

func (c *Client) do(r *http.Request, into any) error {
	if c.HTTP == nil {
		c.HTTP = &http.Client{
			Transport: &http.Transport{TLSClientConfig: c.tlsConfig()}, Timeout: patience,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if c.Session.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Session.Token)
	}
	r.Header.Set("User-Agent", "valise")
	answer, err := c.HTTP.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("the desk's answer: %w", err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("the desk's answer has more than %d octets", maxAnswer)
	}
	if answer.StatusCode != http.StatusOK {
		return problem(answer, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the desk's answer: %w", err)
	}
	return nil
}

// problem reads a refusal; what is none becomes one, so that callers have one
// type to look at.
func problem(answer *http.Response, body []byte) error {
	p := new(Problem)
	if !strings.HasPrefix(answer.Header.Get("Content-Type"), ContentProblem) || json.Unmarshal(body, p) != nil || p.Reason == "" {
		p = &Problem{Reason: ReasonUnavailable, Detail: "it answers " + answer.Status + ": is this an authority with officers?"}
	}
	p.Status = answer.StatusCode
	return p
}

// tlsConfig trusts one root: the one whose hash the settings give, which the
// authority sends at the end of its chain.
func (c *Client) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection judges
		VerifyConnection:   c.verify,
	}
}

func (c *Client) verify(state tls.ConnectionState) error {
	u, err := url.Parse(c.URL)
	if err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, cert := range state.PeerCertificates {
		if sha256.Sum256(cert.Raw) == c.Root {
			found = true
			roots.AddCert(cert)
		} else {
			between.AddCert(cert)
		}
	}
	if !found {
		return ErrRoot
	}
	leaf, name := state.PeerCertificates[0], u.Hostname()
	if ip := net.ParseIP(name); ip != nil {
		name = "[" + ip.String() + "]"
	}
	if err := leaf.VerifyHostname(name); err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: c.now()})
	return err
}
