// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/crypto/acme"

	"valise/attest"
	"valise/identity"
	"valise/manifest"
	"valise/wire"
)

const (
	acmeDirectory  = "/acme/directory"
	manifestPath   = "/manifest"
	acmeChallenge  = "device-attest-01"
	acmeIdentifier = "permanent-identifier"
)

// An Enrollment obtains a device certificate from the authority: RFC 8555 with the
// challenge device-attest-01 (draft-ietf-acme-device-attest-09).
type Enrollment struct {
	// URL is the authority's, https://HOST[:PORT]; Root the SHA-256 of its root
	// certificate. Both stand in the invitation.
	URL  string
	Root [32]byte

	// Invitation binds a new account; nil for a renewal through the old one.
	Invitation *identity.Invitation

	Account  crypto.Signer // a software key; it alone obtains nothing
	Device   crypto.Signer // the card's slot 9a
	Evidence attest.Evidence
	// Prover, if set, makes the evidence instead.
	Prover Prover

	// Progress is told what happens, for a person; it may be nil.
	Progress func(step string)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Dial connects to the authority; nil means directly. An engine's DialAuthority
	// goes through the gateway where it must.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// An Enrolled is what an enrollment yields.
type Enrolled struct {
	Chain  [][]byte          // DER: the device's certificate and the issuer's
	Root   *x509.Certificate // the root that the invitation pins
	Device *identity.Device

	// Record says that the authority keeps a public record: it showed a manifest
	// under its root.
	Record bool
}

func (n *Enrollment) tell(format string, args ...any) {
	if n.Progress != nil {
		n.Progress(fmt.Sprintf(format, args...))
	}
}

func (n *Enrollment) now() time.Time {
	if n.Now == nil {
		return time.Now()
	}
	return n.Now()
}

// Do runs the enrollment to its end, which may lie behind officers' approvals.
func (n *Enrollment) Do(ctx context.Context) (*Enrolled, error) {
	if inv := n.Invitation; inv != nil && n.now().After(inv.Expires) {
		return nil, &hintError{"the invitation ran out on " + inv.Expires.Local().Format(time.DateTime), "ask a security officer for a new one"}
	}
	id, err := identity.DeviceIDOf(n.Device.Public())
	if err != nil {
		return nil, err
	}
	root := new(pinnedRoot)
	c := &acme.Client{
		Key: n.Account, DirectoryURL: n.URL + acmeDirectory, UserAgent: "valise",
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: n.tlsConfig(root), DialContext: n.Dial}, Timeout: time.Minute},
	}
	defer c.HTTPClient.CloseIdleConnections() // a tunnel lasts as long as its connection
	if n.Invitation != nil {
		n.tell("opening an account at %s", n.URL)
		account := &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: n.Invitation.KID, Key: n.Invitation.Key}}
		if _, err := c.Register(ctx, account, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
			return nil, unopened(err)
		}
	}
	order, err := c.AuthorizeOrder(ctx, []acme.AuthzID{{Type: acmeIdentifier, Value: id.String()}})
	if err != nil {
		return nil, fmt.Errorf("order a certificate: %w", problem(err))
	}
	for _, u := range order.AuthzURLs {
		if err := n.prove(ctx, c, u); err != nil {
			return nil, err
		}
	}
	if order, err = c.WaitOrder(ctx, order.URI); err != nil {
		return nil, fmt.Errorf("wait for the order: %w", problem(err))
	}
	n.tell("asking for the certificate; it is issued when the officers whom this needs have approved")
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, n.Device)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate request: %w", err)
	}
	chain, _, err := c.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		return nil, fmt.Errorf("obtain the certificate: %w", problem(err))
	}
	done, err := n.accept(chain, root.cert, id)
	if err != nil {
		return nil, err
	}
	done.Record = n.keepsRecord(ctx, c.HTTPClient, done)
	return done, nil
}

// keepsRecord asks the authority for its manifest. Where that fails the device learns
// from its gateway that there is a record.
func (n *Enrollment) keepsRecord(ctx context.Context, c *http.Client, done *Enrolled) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+manifestPath, nil)
	if err != nil {
		return false
	}
	answer, err := c.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, wire.MaxRecord))
	if err != nil || answer.StatusCode != http.StatusOK {
		return false
	}
	m, err := manifest.ParseManifest(raw, done.Root)
	return err == nil && m.Domain == done.Device.Address.Domain()
}

// prove answers the challenge: the card's key signs this authority's token, and its
// evidence says where that key is.
func (n *Enrollment) prove(ctx context.Context, c *acme.Client, authorization string) error {
	a, err := c.GetAuthorization(ctx, authorization)
	if err != nil {
		return fmt.Errorf("read the challenge: %w", problem(err))
	}
	if a.Status == acme.StatusValid {
		return nil
	}
	for _, ch := range a.Challenges {
		if ch.Type != acmeChallenge {
			continue
		}
		thumbprint, err := acme.JWKThumbprint(n.Account.Public())
		if err != nil {
			return err
		}
		n.tell("%s", n.proving())
		answer, err := attest.Answer(n.Device, []byte(ch.Token+"."+thumbprint))
		if err != nil {
			return fmt.Errorf("sign the challenge: %w", err)
		}
		evidence := n.Evidence
		if n.Prover != nil {
			if evidence, err = n.proveTPM(ctx, c, authorization, answer); err != nil {
				return err
			}
		}
		object, err := attest.MarshalAttestationObject(attest.NewAttestationObject(evidence, answer))
		if err != nil {
			return err
		}
		if ch.Payload, err = json.Marshal(map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(object)}); err != nil {
			return err
		}
		if _, err := c.Accept(ctx, ch); err != nil {
			return fmt.Errorf("the authority refuses the proof: %w", problem(err))
		}
		if _, err := c.WaitAuthorization(ctx, authorization); err != nil {
			return fmt.Errorf("the authority refuses the proof: %w", problem(err))
		}
		return nil
	}
	return errors.New("the authority asks for no proof that this program can give")
}

func (n *Enrollment) proving() string {
	switch {
	case n.Prover != nil:
		return "proving that the key is in the TPM"
	case n.Evidence.Format == attest.FormatWitnessed:
		return "proving possession of the key; two officers must have seen it made in this card"
	}
	return "proving that the key is in the card"
}

// accept checks the certificate against the pinned root before anything relies on it.
func (n *Enrollment) accept(chain [][]byte, root *x509.Certificate, id identity.DeviceID) (*Enrolled, error) {
	if len(chain) > 1 && bytes.Equal(chain[len(chain)-1], root.Raw) {
		chain = chain[:len(chain)-1]
	}
	domain, err := domainOf(chain)
	if err != nil {
		return nil, err
	}
	trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{root}})
	d, err := trust.Device(chain, n.now())
	if err != nil {
		return nil, fmt.Errorf("the certificate that was issued: %w", err)
	}
	if d.ID != id {
		return nil, errors.New("the certificate that was issued is for another key")
	}
	if n.Invitation != nil && d.Address != n.Invitation.Address {
		return nil, fmt.Errorf("the certificate that was issued is for %s, the invitation for %s", d.Address, n.Invitation.Address)
	}
	return &Enrolled{Chain: chain, Root: root, Device: d}, nil
}

func domainOf(chain [][]byte) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("the authority sent no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return "", err
	}
	if len(leaf.EmailAddresses) != 1 {
		return "", errors.New("the certificate that was issued names no address")
	}
	a, err := identity.ParseAddress(leaf.EmailAddresses[0])
	return a.Domain(), err
}

// pinnedRoot remembers the root that a connection was verified against.
type pinnedRoot struct{ cert *x509.Certificate }

// tlsConfig trusts one root: the one whose hash the invitation gives. The authority
// sends it at the end of its chain.
func (n *Enrollment) tlsConfig(found *pinnedRoot) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection judges
		VerifyConnection: func(state tls.ConnectionState) error {
			u, err := url.Parse(n.URL)
			if err != nil {
				return err
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			var root *x509.Certificate
			for _, c := range state.PeerCertificates {
				if sha256.Sum256(c.Raw) == n.Root {
					root = c
					roots.AddCert(c)
				} else {
					between.AddCert(c)
				}
			}
			if root == nil {
				return &hintError{"this is not the authority that the invitation is from", "do not go on; tell a security officer"}
			}
			leaf := state.PeerCertificates[0]
			if ip := net.ParseIP(u.Hostname()); ip != nil {
				err = leaf.VerifyHostname("[" + ip.String() + "]")
			} else {
				err = leaf.VerifyHostname(u.Hostname())
			}
			if err != nil {
				return err
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: n.now()}); err != nil {
				return err
			}
			found.cert = root
			return nil
		},
	}
}

// unopened says why there is no account. What the authority refuses at this point is
// the invitation.
func unopened(err error) error {
	why := fmt.Errorf("open an account at the authority: %w", problem(err))
	if p := new(acme.Error); errors.As(err, &p) && p.StatusCode >= 400 && p.StatusCode < 500 && p.StatusCode != http.StatusTooManyRequests {
		return &hintError{why.Error(), "ask your security officer for a new invitation: each is for one device, and for one day"}
	}
	return why
}

// problem shows what an authority's problem document says (RFC 8555, Section 6.7).
func problem(err error) error {
	var p *acme.Error
	var a *acme.AuthorizationError
	var o *acme.OrderError
	switch {
	case errors.As(err, &p):
		return fmt.Errorf("%s (%s)", p.Detail, p.ProblemType)
	case errors.As(err, &a) && len(a.Errors) > 0:
		return problem(a.Errors[0])
	case errors.As(err, &o) && o.Problem != nil:
		return problem(o.Problem)
	}
	return err
}
