// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"fmt"
	"time"

	"valise/identity"
)

// A Profile is the rule for certificates of one name.
type Profile struct {
	Change    string // 128 random bits, from NewID
	Name      string
	Version   int // rises by one
	Approvals int // officers that must approve a first issuance
	Validity  time.Duration
	Grace     time.Duration // after expiry, in which a renewal needs no new approvals
	Tiers     []identity.Tier
	Previous  [32]byte // BodyDigest of this profile's last one, zero if there was none
}

// Kind implements Body.
func (*Profile) Kind() Kind { return KindProfile }

func (p *Profile) members(m *members) {
	m.id("change", &p.Change)
	m.token("name", &p.Name)
	m.number("version", &p.Version, 1, maxVersion)
	m.number("approvals", &p.Approvals, 1, MaxApprovals)
	m.period("validity", &p.Validity, time.Minute)
	m.period("grace", &p.Grace, 0)
	all := []identity.Tier{identity.TierHardware, identity.TierWitnessed}
	list(m, "tiers", &p.Tiers, len(all), func(t *identity.Tier) { choose(m, "tiers", t, all) })
	m.check(len(p.Tiers) == 1 || len(p.Tiers) == 2 && p.Tiers[0] < p.Tiers[1], "tiers: want one, or hardware and then witnessed")
	m.hash("previous", &p.Previous)
}

// Words implements Body.
func (p *Profile) Words() []string {
	return []string{
		fmt.Sprintf("set the profile %s, version %d", p.Name, p.Version),
		fmt.Sprintf("approvals: %d officers for each first certificate", p.Approvals),
		"valid for: " + periodWords(p.Validity),
		"grace after expiry: " + periodWords(p.Grace),
		fmt.Sprintf("tiers: %v", p.Tiers),
		"takes the place of: " + hashWords(p.Previous),
		"change: " + p.Change,
	}
}
