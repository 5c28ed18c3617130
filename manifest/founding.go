// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"time"

	"valise/identity"
	"valise/internal/jws"
)

// A Founding is how an authority began: its first officers and rules. It is the
// first leaf of the record.
type Founding struct {
	Domain       string
	Time         time.Time // of the ceremony
	Officers     [][]byte  // DER; who vouches for them is the issuing certificate
	Profiles     []Profile
	Endorsements []byte   // the vendors' roots, PEM
	Appraisal    []byte   // the appraisal policy, JSON
	Ceremony     [32]byte // SHA-256 of the ceremony's file; zero if there was none
}

// A Profile says how certificates of one kind are issued.
type Profile struct {
	Name      string
	Version   int // from 1
	Approvals int // how many officers; 0 only where there are none
	Validity  time.Duration
	Grace     time.Duration   // how long after its end a certificate can be renewed
	Tiers     []identity.Tier // in which keys may be
}

// Lone reports whether the authority has no officers: whoever runs it decides
// alone.
func (f *Founding) Lone() bool { return len(f.Officers) == 0 }

// foundingBody is a founding record's payload. See spec/bulletin.md, Section 2.
type foundingBody struct {
	Domain       string        `json:"domain"`
	Time         int64         `json:"time"`
	Officers     [][]byte      `json:"officers"`
	Profiles     []profileBody `json:"profiles"`
	Endorsements string        `json:"endorsements"`
	Appraisal    string        `json:"appraisal"`
	Ceremony     jws.Hash      `json:"ceremony"`
}

type profileBody struct {
	Name      string          `json:"name"`
	Version   int             `json:"version"`
	Approvals int             `json:"approvals"`
	Validity  int64           `json:"validity"` // seconds
	Grace     int64           `json:"grace"`    // seconds
	Tiers     []identity.Tier `json:"tiers"`
}

func (f *Founding) typ() string { return foundingType }
func (f *Founding) limit() int  { return maxFounding }

func (f *Founding) payload() any {
	b := foundingBody{
		Domain: f.Domain, Time: seconds(f.Time), Officers: f.Officers, Profiles: []profileBody{},
		Endorsements: string(f.Endorsements), Appraisal: string(f.Appraisal), Ceremony: f.Ceremony,
	}
	if b.Officers == nil {
		b.Officers = [][]byte{}
	}
	for _, p := range f.Profiles {
		b.Profiles = append(b.Profiles, profileBody{
			p.Name, p.Version, p.Approvals, int64(p.Validity / time.Second), int64(p.Grace / time.Second), p.Tiers,
		})
	}
	return b
}

// ParseFounding verifies a founding record's signature by the pinned root and
// all that it says, but for the officers' certificates: their issuer stands in
// the first manifest.
func ParseFounding(raw []byte, root *x509.Certificate) (*Founding, error) {
	payload, err := open(raw, root, new(Founding))
	if err != nil {
		return nil, err
	}
	return decodeFounding(payload, root)
}

func decodeFounding(payload []byte, root *x509.Certificate) (*Founding, error) {
	var b foundingBody
	if err := jws.Decode(payload, &b); err != nil {
		return nil, refuse("payload: %w", err)
	}
	f := &Founding{
		Domain: b.Domain, Time: fromSeconds(b.Time), Officers: b.Officers,
		Endorsements: []byte(b.Endorsements), Appraisal: []byte(b.Appraisal), Ceremony: b.Ceremony,
	}
	if b.Officers == nil || b.Profiles == nil {
		return nil, refuse("payload: a list is null")
	}
	for _, p := range b.Profiles {
		if max(p.Validity, p.Grace) > maxYears*366*24*3600 || min(p.Validity, p.Grace) < 0 {
			return nil, refuse("profile %.40q: validity %d and grace %d are out of bounds", p.Name, p.Validity, p.Grace)
		}
		f.Profiles = append(f.Profiles, Profile{
			p.Name, p.Version, p.Approvals, time.Duration(p.Validity) * time.Second, time.Duration(p.Grace) * time.Second, p.Tiers,
		})
	}
	return f, f.check(root)
}

func (f *Founding) check(*x509.Certificate) error {
	if err := identity.CheckDomain(f.Domain); err != nil {
		return refuse("%w", err)
	}
	if err := checkTime("time", f.Time, false); err != nil {
		return err
	}
	if err := f.checkOfficers(); err != nil {
		return err
	}
	if err := f.checkProfiles(); err != nil {
		return err
	}
	for rest := f.Endorsements; len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if strings.TrimSpace(string(rest)) != "" {
				return refuse("endorsements: not PEM")
			}
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return refuse("endorsements: a %.40q that is no certificate", block.Type)
		}
	}
	if len(f.Appraisal) > 0 && !json.Valid(f.Appraisal) {
		return refuse("appraisal policy: not JSON")
	}
	return nil
}

func (f *Founding) checkOfficers() error {
	if len(f.Officers) > maxOfficers {
		return refuse("%d officers, at most %d are allowed", len(f.Officers), maxOfficers)
	}
	seen := make(map[string]bool)
	for _, der := range f.Officers {
		if len(der) > identity.MaxCertificateSize {
			return refuse("an officer's certificate of %d bytes, at most %d are allowed", len(der), identity.MaxCertificateSize)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return refuse("an officer's certificate: %w", err)
		}
		if seen[string(cert.RawSubjectPublicKeyInfo)] {
			return refuse("two officers have the same key")
		}
		seen[string(cert.RawSubjectPublicKeyInfo)] = true
	}
	return nil
}

func (f *Founding) checkProfiles() error {
	if len(f.Profiles) == 0 || len(f.Profiles) > maxProfiles {
		return refuse("%d profiles, want 1 to %d", len(f.Profiles), maxProfiles)
	}
	seen := make(map[string]bool)
	for _, p := range f.Profiles {
		if seen[p.Name] {
			return refuse("profile %q stands there twice", p.Name)
		}
		seen[p.Name] = true
		if err := p.check(); err != nil {
			return err
		}
		if f.Lone() && p.Approvals > 0 {
			return refuse("profile %q asks for %d approvals of officers, and there are none", p.Name, p.Approvals)
		}
	}
	return nil
}

func (p Profile) check() error {
	bad := func(r rune) bool { return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-') }
	switch {
	case p.Name == "" || len(p.Name) > maxName || strings.IndexFunc(p.Name, bad) >= 0:
		return refuse("profile %.40q: a name takes 1 to %d of a-z 0-9 and hyphens", p.Name, maxName)
	case p.Version < 1 || p.Version > 1<<31-1:
		return refuse("profile %q: version %d, they count from 1", p.Name, p.Version)
	case p.Approvals < 0 || p.Approvals > maxApprovals:
		return refuse("profile %q: %d approvals, want 0 to %d", p.Name, p.Approvals, maxApprovals)
	case p.Validity < time.Minute || p.Grace < 0 || max(p.Validity, p.Grace) > maxYears*366*24*time.Hour:
		return refuse("profile %q: validity %v and grace %v are out of bounds", p.Name, p.Validity, p.Grace)
	case p.Validity%time.Second != 0 || p.Grace%time.Second != 0:
		return refuse("profile %q: validity %v and grace %v must be whole seconds", p.Name, p.Validity, p.Grace)
	case len(p.Tiers) == 0 || len(p.Tiers) > MaxKeys:
		return refuse("profile %q: no tier, or too many", p.Name)
	}
	for i, tier := range p.Tiers {
		if err := (identity.Appraisal{Tier: tier, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{1}}).Check(); err != nil {
			return refuse("profile %q: %w", p.Name, err)
		}
		for _, other := range p.Tiers[:i] {
			if tier == other {
				return refuse("profile %q: tier %q stands there twice", p.Name, tier)
			}
		}
	}
	return nil
}
