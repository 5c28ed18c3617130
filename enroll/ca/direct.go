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

	"valise/enroll/book"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
)

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
	i, err := c.issueDirect(ctx, "server", names, request, template, nil)
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

// issueDirect is the way of certificates that have no order. confirm, if not nil, has
// the last word in both transactions.
func (c *CA) issueDirect(ctx context.Context, kind string, names []string, request []byte, template *x509.Certificate,
	confirm func(*authority.Tx, *record.State) error,
) (authority.Issuance, error) {
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
		if confirm != nil {
			if err := confirm(tx, s); err != nil {
				return err
			}
		}
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
	return c.finish(ctx, i, confirm)
}
