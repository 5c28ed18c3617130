// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/sha256"
	"crypto/x509"

	"valise/attest"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
)

// found applies the founding record. Nothing but certificates without a time, of
// before there were such records, may stand in front of it.
func (s *State) found(i ledger.Item) *Finding {
	if s.founding != nil || !s.last.IsZero() {
		return find(BadFounding, "an authority is founded once, before anything else")
	}
	f, err := manifest.ParseFounding(i.Payload, s.root)
	if err != nil {
		return find(BadFounding, "%v", err)
	}
	if bad := s.foundRules(f); bad != nil {
		return bad
	}
	founders := make(map[[32]byte]bool)
	for _, der := range f.Officers {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return find(BadFounding, "an officer's certificate: %v", err)
		}
		founders[sha256.Sum256(cert.RawTBSCertificate)] = true
	}
	assign(s, &s.founders, founders)
	assign(s, &s.founding, f)
	assign(s, &s.trust, identity.NewTrust(identity.Authority{Domain: f.Domain, Roots: []*x509.Certificate{s.root}}))
	return nil
}

func (s *State) foundRules(f *manifest.Founding) *Finding {
	for _, p := range f.Profiles {
		if !f.Lone() && p.Approvals < MinApprovals {
			return find(TooFewApprovals, "profile %q asks for %d approvals, want at least %d", p.Name, p.Approvals, MinApprovals)
		}
		put(s, s.profiles, p.Name, Profile{Profile: p})
	}
	if f.Lone() {
		return nil
	}
	endorsements, err := attest.Configured(f.Endorsements)
	if err != nil {
		return find(BadRule, "endorsements: %v", err)
	}
	policy, err := attest.ParsePolicy(f.Appraisal)
	if err != nil {
		return find(BadRule, "%v", err)
	}
	assign(s, &s.endorsements, Rule[*attest.Endorsements]{Value: endorsements, Raw: f.Endorsements, Leaf: s.Size()})
	assign(s, &s.appraisal, Rule[*attest.AppraisalPolicy]{Value: policy, Raw: f.Appraisal, Leaf: s.Size()})
	return nil
}

// renew applies a manifest. The first one names the issuing certificate of the
// first officers, who are in office from there on.
func (s *State) renew(i ledger.Item) *Finding {
	if s.founding == nil {
		return find(NoFounding, "a manifest before the founding record")
	}
	m, err := manifest.ParseManifest(i.Payload, s.root)
	if err != nil {
		return find(BadManifest, "%v", err)
	}
	if m.Domain != s.founding.Domain {
		return find(BadManifest, "it is for %s, the authority is that of %s", m.Domain, s.founding.Domain)
	}
	if err := m.Follows(s.manifest); err != nil {
		return find(BadManifest, "%v", err)
	}
	first := s.manifest == nil
	assign(s, &s.manifest, m)
	assign(s, &s.manifestRaw, i.Payload)
	if first {
		return s.inaugurate()
	}
	return nil
}

// inaugurate puts the first officers into office.
func (s *State) inaugurate() *Finding {
	for _, der := range s.founding.Officers {
		o, err := s.founder(der)
		if err != nil {
			return find(BadFounding, "an officer's certificate: %v", err)
		}
		if _, twice := s.officers[o.Address]; twice {
			return find(BadFounding, "%s stands twice among the first officers", o.Address)
		}
		s.enlist(o.Address, Officer{
			Address: o.Address, Key: o.Key, SPKI: o.Leaf.RawSubjectPublicKeyInfo, Role: o.Role, Evidence: o.Appraisal.EvidenceHash, Appraisal: o.Appraisal.PolicyHash,
			Since: s.founding.Time, Certificate: der,
		})
	}
	return nil
}

// founder finds the issuing certificate above an officer's and checks both as of
// the certificate's first moment.
func (s *State) founder(der []byte) (o *identity.Officer, err error) {
	at, err := identity.IssuedAt([][]byte{der})
	if err != nil {
		return nil, err
	}
	for _, issuer := range s.manifest.Issuers {
		if o, err = s.trust.Officer([][]byte{der, issuer.Certificate}, at); err == nil {
			return o, nil
		}
	}
	return nil, err
}

func (s *State) enlist(a identity.Address, o Officer) {
	put(s, s.officers, a, o)
	put(s, s.officerKeys, o.Key, a)
}
