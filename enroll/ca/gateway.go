// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"valise/attest"
	"valise/enroll/book"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
)

// IssueGateway issues a gateway's certificate from its CSR, without evidence: whoever
// calls this has seen where the key is, and the certificate says so: tier
// "witnessed". The names come from the caller, not from the CSR.
//
// If a crash left the same request unsigned, that one is finished.
func (c *CA) IssueGateway(ctx context.Context, csrDER []byte, names []string) (authority.Issuance, error) {
	return c.IssueGatewayOn(ctx, csrDER, names, nil)
}

// IssueGatewayOn is IssueGateway with the HSM's evidence for the key, if it is not
// nil: the appraisal must accept it, and the certificate's tier is "hardware".
func (c *CA) IssueGatewayOn(ctx context.Context, csrDER []byte, names []string, evidence *attest.Evidence) (authority.Issuance, error) {
	none := authority.Issuance{}
	csr, err := CheckCSR(csrDER)
	if err != nil {
		return none, err
	}
	if len(names) == 0 {
		return none, errors.New("ca: a gateway's certificate needs at least one name")
	}
	profile := identity.GatewayProfile{
		Name: names[0], More: names[1:], PublicKey: csr.PublicKey,
		Tier: identity.TierWitnessed, Serial: newSerial(),
	}
	if evidence != nil {
		all := c.Appraisers()
		result := all[0].AppraiseGateway(*evidence, csr.PublicKey, c.cfg.Now())
		for _, other := range all[1:] {
			if again := other.AppraiseGateway(*evidence, csr.PublicKey, c.cfg.Now()); result.Accepted() && !again.Accepted() {
				result = again
			}
		}
		if !result.Accepted() {
			return none, &RefusedError{string(result.Reason())}
		}
		profile.Tier, profile.EvidenceHash, profile.PolicyHash = identity.Tier(result.Tier), result.EvidenceHash, result.PolicyHash
	}
	profile.NotBefore, profile.NotAfter = c.validity(c.cfg.Gateway.Validity)
	template, err := profile.Template()
	if err != nil {
		return none, err
	}
	return c.issueDirect(ctx, "gateway", names, digest(csrDER), template)
}

// IssueServer returns a certificate for the authority's own HTTPS listener, whose key
// is in the token as well: the newest one for the same key and names, until two
// thirds of its life are over, then a new one. An authority that was restored and may
// not issue yet gets the newest one until it expires: gateways must reach it to tell
// what it lacks.
func (c *CA) IssueServer(ctx context.Context, key crypto.PublicKey, names []string) (authority.Issuance, error) {
	none := authority.Issuance{}
	if err := identity.CheckKey(key); err != nil {
		return none, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return none, err
	}
	request := digest(spki)
	subject := strings.Join(names, " ")
	old, err := c.newest(ctx, "server", subject, request)
	if err != nil || old.Done() {
		return old, err
	}
	template, err := c.serverTemplate(key, names)
	if err != nil {
		return none, err
	}
	i, err := c.issueDirect(ctx, "server", names, request, template)
	if errors.Is(err, authority.ErrRestored) {
		if old, oldErr := c.younger(ctx, "server", subject, request, 1, 1); oldErr == nil && old.Done() {
			return old, nil
		}
	}
	return i, err
}

// newest finds a certificate that is good for another while.
func (c *CA) newest(ctx context.Context, kind, subject string, request []byte) (authority.Issuance, error) {
	return c.younger(ctx, kind, subject, request, 2, 3)
}

// younger finds the newest certificate, if less than this part of its life is over.
func (c *CA) younger(ctx context.Context, kind, subject string, request []byte, part, of time.Duration) (found authority.Issuance, err error) {
	err = c.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		found, err = tx.LatestIssuance(kind, subject, request)
		return err
	})
	if errors.Is(err, authority.ErrNotFound) {
		return authority.Issuance{}, nil
	}
	life := found.NotAfter.Sub(found.Created)
	if err == nil && c.cfg.Now().After(found.Created.Add(life*part/of)) {
		found = authority.Issuance{}
	}
	if err == nil && found.Done() && c.issuer.verify(found.Certificate, found.TBS) != nil {
		found = authority.Issuance{} // made under an earlier issuing key
	}
	return found, err
}

// serverTemplate is an ordinary TLS server's: serverAuth only, so that it can never
// pass for a gateway.
func (c *CA) serverTemplate(key crypto.PublicKey, names []string) (*x509.Certificate, error) {
	if len(names) == 0 || len(names) > identity.MaxGatewayNames {
		return nil, fmt.Errorf("ca: the server's certificate takes 1 to %d names", identity.MaxGatewayNames)
	}
	t := &x509.Certificate{
		PublicKey: key, SerialNumber: newSerial(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	id, err := identity.DeviceIDOf(key)
	if err != nil {
		return nil, err
	}
	t.SubjectKeyId = id[:20] // RFC 7093, Section 2, method 4
	t.NotBefore, t.NotAfter = c.validity(c.cfg.Gateway.Validity)
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
			t.IPAddresses = append(t.IPAddresses, addr.AsSlice())
		} else if err := identity.CheckDomain(name); err == nil {
			t.DNSNames = append(t.DNSNames, name)
		} else {
			return nil, fmt.Errorf("ca: %q is neither an IP address nor a DNS name in lower case", name)
		}
	}
	return t, nil
}

// issueDirect is the way of certificates that have no order.
func (c *CA) issueDirect(ctx context.Context, kind string, names []string, request []byte, template *x509.Certificate) (authority.Issuance, error) {
	tbs, err := c.issuer.build(template)
	if err != nil {
		return authority.Issuance{}, err
	}
	id := make([]byte, 16)
	rand.Read(id)
	fresh := authority.Issuance{
		Ref: kind + ":" + hex.EncodeToString(id), Kind: kind, Subject: strings.Join(names, " "),
		Request: request, Serial: template.SerialNumber.Bytes(), TBS: tbs, NotAfter: template.NotAfter,
	}
	if err := c.step("built"); err != nil {
		return fresh, err
	}
	var i authority.Issuance
	err = c.cfg.Book.Update(ctx, func(tx *authority.Tx, s *record.State, add book.Append) error {
		left, err := tx.OpenIssuance(kind, fresh.Subject, request)
		if err == nil {
			err = known(s, left)
		}
		if err == nil {
			if err = c.same(tx, left, template, c.cfg.Gateway.Validity); err == nil {
				i = left
				return nil
			}
		}
		if !errors.Is(err, authority.ErrNotFound) && !errors.Is(err, ErrStale) && !errors.Is(err, ErrExpired) {
			return err
		}
		i, err = enter(tx, add, fresh, c.cfg.Now())
		return err
	})
	if err != nil {
		return i, err
	}
	if err := c.step("recorded"); err != nil {
		return i, err
	}
	return c.finish(ctx, i, nil)
}
