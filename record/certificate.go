// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// The kinds of certificates that an authority issues.
const (
	KindDevice  = "device"
	KindOfficer = "officer"
	KindGateway = "gateway"
	KindServer  = "server" // the authority's own
)

// A Key is one that has certificates: a device's or an officer's.
type Key struct {
	ID           identity.DeviceID
	Kind         string
	Address      identity.Address
	Certificates []Certificate // those that had not ended when the newest one was recorded
}

// A Certificate is one that was recorded; whether it was signed and handed out the
// record does not say.
type Certificate struct {
	Serial    []byte
	NotBefore time.Time
	NotAfter  time.Time
	Tier      identity.Tier
	Clearance *identity.Clearance
	Leaf      int64
}

// issue applies an issuance.
func (s *State) issue(i ledger.Item, at time.Time) *Finding {
	if s.founding == nil || s.Lone() {
		return nil // nobody vouches for it but whoever runs the authority
	}
	cert, err := ReadCertificate(i.Payload)
	if err != nil {
		return find(BadCertificate, "%v", err)
	}
	serial := string(cert.SerialNumber.Bytes())
	if first, ok := s.serials[serial]; ok {
		return find(RepeatedCertificate, "leaf %d has a certificate of the same serial number", first)
	}
	if f := s.issuer(cert, at); f != nil {
		return f
	}
	if f := s.certify(cert, i.Payload, at); f != nil {
		return f
	}
	put(s, s.serials, serial, s.Size())
	return nil
}

// issuer checks that a certificate names an issuing certificate of the manifest whose
// use has not ended. The founders' come before the first manifest.
func (s *State) issuer(cert *x509.Certificate, at time.Time) *Finding {
	if s.manifest == nil {
		return nil
	}
	for _, known := range s.manifest.Issuers {
		c, err := x509.ParseCertificate(known.Certificate)
		if err != nil || !bytes.Equal(c.RawSubject, cert.RawIssuer) || !bytes.Equal(c.SubjectKeyId, cert.AuthorityKeyId) {
			continue
		}
		if !known.Until.IsZero() && at.After(known.Until) {
			return find(WrongIssuer, "the issuer %q was in use until %s", cert.Issuer, known.Until.Format(time.RFC3339))
		}
		return nil
	}
	return find(WrongIssuer, "no manifest names the issuer %q", cert.Issuer)
}

func (s *State) certify(cert *x509.Certificate, tbs []byte, at time.Time) *Finding {
	if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
		return find(BadCertificate, "it may do more than sign")
	}
	switch usage(cert) {
	case usageDevice:
		return s.certifyDevice(cert, at)
	case usageOfficer:
		return s.certifyOfficer(cert, tbs, at)
	case usageGateway, usageServer, usageOCSP:
		return nil // no person's and no right on the network but to be one
	}
	return find(BadCertificate, "extended key usages %v and %v", cert.ExtKeyUsage, cert.UnknownExtKeyUsage)
}

// A purpose is what a certificate is for.
type purpose int

const (
	usageUnknown purpose = iota
	usageDevice
	usageOfficer
	usageGateway
	usageServer
	usageOCSP
)

func usage(cert *x509.Certificate) purpose {
	is := func(standard []x509.ExtKeyUsage, ours []asn1.ObjectIdentifier) bool {
		return slices.Equal(cert.ExtKeyUsage, standard) && slices.EqualFunc(cert.UnknownExtKeyUsage, ours, asn1.ObjectIdentifier.Equal)
	}
	switch {
	case is([]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []asn1.ObjectIdentifier{identity.OIDDeviceUsage}):
		return usageDevice
	case is(nil, []asn1.ObjectIdentifier{identity.OIDOfficerUsage}):
		return usageOfficer
	case is([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []asn1.ObjectIdentifier{identity.OIDGatewayUsage}):
		return usageGateway
	case is([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil):
		return usageServer
	case is([]x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, nil):
		return usageOCSP
	}
	return usageUnknown
}

// certifyDevice finds the approvals that a device's certificate stands on, by what
// it says: the request and the rule behind its dates are not in it.
func (s *State) certifyDevice(cert *x509.Certificate, at time.Time) *Finding {
	t, err := templateOf(cert)
	if err != nil {
		return find(BadCertificate, "%v", err)
	}
	g, bad := s.groundsOf(t, at)
	if bad != nil {
		return bad
	}
	if f := checkDates(cert, g.approval.Validity, at); f != nil {
		return f
	}
	s.stand(g, cert.NotAfter)
	s.keep(KindDevice, t, cert)
	return nil
}

func (s *State) groundsOf(t statement.Template, at time.Time) (*grant, *Finding) {
	none := find(NoApproval, "nobody approved a certificate for %s and the device %s", t.Address, t.Device)
	tried := make(map[string]bool)
	for _, g := range slices.Backward(s.grants[t.Device]) {
		if tried[g.approval.Profile] {
			continue
		}
		tried[g.approval.Profile] = true
		t.Profile, t.ProfileVersion = g.approval.Profile, s.profiles[g.approval.Profile].Version
		if f := s.permits(t); f != nil {
			none = f
			continue
		}
		found, err := s.carry(t, at, func(g *grant) bool { return sameText(&g.approval.Template, &t) })
		if err == nil {
			return found, nil
		}
		none = find(NoApproval, "%v", err)
	}
	return nil, none
}

// sameText reports whether a certificate says exactly what was approved.
func sameText(approved, t *statement.Template) bool {
	return approved.Address == t.Address && approved.Device == t.Device && bytes.Equal(approved.CSRKey, t.CSRKey) &&
		approved.ProfileVersion == t.ProfileVersion && approved.Tier == t.Tier &&
		approved.Evidence == t.Evidence && approved.Appraisal == t.Appraisal &&
		approved.Clearance.Covers(t.Clearance) && t.Clearance.Covers(approved.Clearance)
}

// checkDates holds a certificate to its leaf's time and to the life that was
// approved.
func checkDates(cert *x509.Certificate, life time.Duration, at time.Time) *Finding {
	if cert.NotBefore.Before(at.Add(-backdate)) || cert.NotBefore.After(at) || cert.NotAfter.After(at.Add(life)) {
		return find(WrongValidity, "from %s to %s, recorded at %s with a life of %v", cert.NotBefore.Format(time.RFC3339),
			cert.NotAfter.Format(time.RFC3339), at.Format(time.RFC3339), life)
	}
	return nil
}

// templateOf reads what a device's certificate says.
func templateOf(cert *x509.Certificate) (statement.Template, error) {
	t := statement.Template{Role: statement.RoleDevice, CSRKey: cert.RawSubjectPublicKeyInfo}
	contents, err := identity.ReadDevice(cert)
	if err != nil {
		return t, err
	}
	t.Address, t.Device, t.Clearance = contents.Address, contents.ID, contents.Clearance
	t.Tier, t.Evidence, t.Appraisal = contents.Appraisal.Tier, contents.Appraisal.EvidenceHash, contents.Appraisal.PolicyHash
	return t, nil
}

// certifyOfficer lets an officer in office have a certificate for the key of their
// appointment, and nobody else.
func (s *State) certifyOfficer(cert *x509.Certificate, tbs []byte, at time.Time) *Finding {
	founder := s.founders[sha256.Sum256(tbs)]
	c, err := identity.ReadOfficer(cert)
	if err != nil {
		return find(BadCertificate, "%v", err)
	}
	if !founder {
		o, ok := s.officers[c.Address]
		if !ok || !o.Dismissed.IsZero() || o.Key != c.Key || o.Role != c.Role ||
			o.Evidence != c.Appraisal.EvidenceHash || o.Appraisal != c.Appraisal.PolicyHash {
			return find(NotAppointed, "%s was not appointed as %s with the key %s", c.Address, c.Role, c.Key)
		}
		if f := s.notOut(c.Address, c.Key); f != nil {
			return f
		}
		if f := checkDates(cert, officerLife, at); f != nil {
			return f
		}
	}
	s.keep(KindOfficer, statement.Template{Address: c.Address, Device: c.Key, Tier: c.Appraisal.Tier}, cert)
	return nil
}

// keep notes a certificate under its key, and forgets those that have ended.
func (s *State) keep(kind string, t statement.Template, cert *x509.Certificate) {
	old, known := s.keys[t.Device]
	now := Key{ID: t.Device, Kind: kind, Address: t.Address}
	for _, c := range old.Certificates {
		if !c.NotAfter.Before(s.last) {
			now.Certificates = append(now.Certificates, c)
		}
	}
	now.Certificates = append(now.Certificates, Certificate{
		Serial: cert.SerialNumber.Bytes(), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Tier: t.Tier, Clearance: t.Clearance, Leaf: s.Size(),
	})
	put(s, s.keys, t.Device, now)
	if !known {
		put(s, s.byAddress, t.Address, with(s.byAddress[t.Address], t.Device))
	}
}

// ReadCertificate reads the payload of an issuance, a TBSCertificate (RFC 5280,
// Section 4.1), by putting it into a certificate without a signature. It verifies
// nothing.
func ReadCertificate(tbs []byte) (*x509.Certificate, error) {
	var body, alg cryptobyte.String
	in := cryptobyte.String(tbs)
	if !in.ReadASN1(&body, tag.SEQUENCE) || !in.Empty() ||
		!body.SkipASN1(tag.Tag(0).ContextSpecific().Constructed()) ||
		!body.SkipASN1(tag.INTEGER) || !body.ReadASN1Element(&alg, tag.SEQUENCE) {
		return nil, errNotTBS
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(alg)
		b.AddASN1BitString(nil)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
