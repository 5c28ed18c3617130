// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"slices"
	"time"

	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// gatewayProfile is the profile whose grace holds for gateways too.
const gatewayProfile = "device"

// A pass is what officers decided about one gateway's key and names.
type pass struct {
	digest     [32]byte
	body       statement.Gateway
	signatures []Signature
	decided    int64
	dead       bool      // the key was revoked since
	used       bool      // a certificate stands on it
	until      time.Time // the end of the newest of them
}

// checkGateway lets no key be a gateway's that is somebody's, or that was stopped.
func (s *State) checkGateway(b *statement.Gateway) *Finding {
	id := b.Key()
	if f := s.barred(identity.Address{}, id); f != nil {
		return f
	}
	if k, ok := s.keys[id]; ok {
		return find(KeyTaken, "the key is %s's", k.Address)
	}
	if owner, ok := s.officerKeys[id]; ok {
		return find(KeyTaken, "the key is what %s signs with as an officer", owner)
	}
	return nil
}

// admit puts a decision about a gateway into force.
func (s *State) admit(b *statement.Gateway, ballot *Ballot) {
	id := b.Key()
	put(s, s.passes, id, with(s.passes[id], &pass{digest: ballot.Digest, body: *b, signatures: ballot.Signatures, decided: ballot.Decided}))
}

// killGateway ends what officers decided about a key.
func (s *State) killGateway(id identity.DeviceID) {
	if len(s.passes[id]) == 0 {
		return
	}
	var all []*pass
	for _, p := range s.passes[id] {
		dead := *p
		dead.dead = true
		all = append(all, &dead)
	}
	put(s, s.passes, id, all)
}

// GatewayCarriers returns the digest of the decision, and the signatures, on which a
// gateway's certificate would stand: of these names in any order, this key, tier and
// hashes, and at least this validity; Change does not count. A *MissingError says
// that officers must approve first; a *Finding, that it must not be issued at all.
func (s *State) GatewayCarriers(want statement.Gateway, at time.Time) ([32]byte, []Signature, error) {
	if f := s.checkGateway(&want); f != nil {
		return [32]byte{}, nil, f
	}
	p, err := s.carryGateway(&want, at)
	if err != nil {
		return [32]byte{}, nil, err
	}
	return p.digest, p.signatures, nil
}

func (s *State) carryGateway(want *statement.Gateway, at time.Time) (*pass, error) {
	missing := &MissingError{Need: statement.Needs(statement.KindGateway, false), Why: NewGateway}
	for _, p := range slices.Backward(s.passes[want.Key()]) {
		switch {
		case p.dead:
			missing.gateway(Ended)
		case !sameGateway(&p.body, want):
			missing.gateway(Changed)
		case p.used && at.After(p.until.Add(s.profiles[gatewayProfile].Grace)):
			missing.gateway(Lapsed)
		case p.used:
			return p, nil
		default:
			fresh := s.valid(p.signatures, at)
			if len(fresh) >= missing.Need {
				return p, nil
			}
			missing.Have = max(missing.Have, len(fresh))
		}
	}
	for _, b := range s.ballots {
		if g, ok := b.Body.(*statement.Gateway); ok && b.Decided < 0 && sameGateway(g, want) {
			missing.Have = max(missing.Have, len(s.counting(b, at)))
		}
	}
	return nil, missing
}

// gateway keeps the first reason: that of the newest decision.
func (e *MissingError) gateway(w Why) {
	if e.Why == NewGateway {
		e.Why = w
	}
}

// sameGateway reports whether a decision is about exactly this certificate.
func sameGateway(decided, want *statement.Gateway) bool {
	return bytes.Equal(decided.CSRKey, want.CSRKey) && decided.Tier == want.Tier &&
		decided.Evidence == want.Evidence && decided.Appraisal == want.Appraisal && want.Validity <= decided.Validity &&
		slices.Equal(slices.Sorted(slices.Values(decided.Names)), slices.Sorted(slices.Values(want.Names)))
}

// certifyGateway lets a gateway have the certificate that two officers approved, and
// renewals of it.
func (s *State) certifyGateway(cert *x509.Certificate, at time.Time) *Finding {
	want, err := readGateway(cert)
	if err != nil {
		return find(BadCertificate, "%v", err)
	}
	if f := s.checkGateway(want); f != nil {
		return f
	}
	p, missing := s.carryGateway(want, at)
	if missing != nil {
		return find(NoApproval, "a gateway's certificate for %v: %v", want.Names, missing)
	}
	if f := checkDates(cert, p.body.Validity, at); f != nil {
		return f
	}
	now := *p
	now.used = true
	if cert.NotAfter.After(now.until) {
		now.until = cert.NotAfter
	}
	id := want.Key()
	all := slices.Clone(s.passes[id])
	all[slices.Index(all, p)] = &now
	put(s, s.passes, id, all)
	return nil
}

// readGateway reads what a gateway's certificate says; its dates are apart.
func readGateway(cert *x509.Certificate) (*statement.Gateway, error) {
	appraisal, err := identity.ReadGateway(cert)
	if err != nil {
		return nil, err
	}
	g := &statement.Gateway{
		Names: slices.Clone(cert.DNSNames), CSRKey: cert.RawSubjectPublicKeyInfo,
		Tier: appraisal.Tier, Evidence: appraisal.EvidenceHash, Appraisal: appraisal.PolicyHash,
	}
	for _, ip := range cert.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip) // RFC 5280, Section 4.2.1.6: 4 or 16 octets
		g.Names = append(g.Names, addr.String())
	}
	if _, err := deviceOf(g.CSRKey); err != nil {
		return nil, err
	}
	return g, nil
}

// RecheckGateway is Recheck for one signature on a decision about a gateway, by the
// digest that GatewayCarriers returned.
func (s *State) RecheckGateway(digest [32]byte, sig Signature, i ledger.Item) error {
	st, f := s.reread(sig, i)
	if f != nil {
		return f
	}
	if st.Body.Kind() != statement.KindGateway || statement.BodyDigest(st.Body) != digest {
		return &Finding{sig.Leaf, NoApproval, "it approves something else"}
	}
	return nil
}
