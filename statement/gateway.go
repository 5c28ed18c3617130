// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"valise/identity"
)

// A Gateway agrees that one key gets certificates of a gateway with these names: the
// first one until the statements expire, and renewals of exactly the same.
type Gateway struct {
	Change    string   // 128 random bits, from NewID
	Names     []string // DNS names and IP addresses; the first is what the gateway is called
	CSRKey    []byte   // SubjectPublicKeyInfo in DER
	Tier      identity.Tier
	Evidence  [32]byte // SHA-256 of the evidence; zero for a witnessed key
	Appraisal [32]byte // SHA-256 of the appraisal policy; zero for a witnessed key
	Validity  time.Duration
}

// Kind implements Body.
func (*Gateway) Kind() Kind { return KindGateway }

func (g *Gateway) members(m *members) {
	m.id("change", &g.Change)
	list(m, "names", &g.Names, identity.MaxGatewayNames, func(name *string) {
		m.quoted(name, maxGatewayName)
		m.check(isGatewayName(*name), "names: %.40q is neither an IP address nor a DNS name in its one spelling", *name)
	})
	m.check(len(g.Names) > 0, "names: there is none")
	sorted := slices.Sorted(slices.Values(g.Names))
	m.check(len(slices.Compact(sorted)) == len(g.Names), "names: one stands there twice")
	m.key("key", &g.CSRKey)
	choice(m, "tier", &g.Tier, identity.TierHardware, identity.TierWitnessed)
	m.hash("evidence", &g.Evidence)
	m.hash("appraisal", &g.Appraisal)
	m.period("validity", &g.Validity, time.Second)
	var none [32]byte
	proven := g.Evidence != none && g.Appraisal != none
	m.check(g.Tier != identity.TierHardware || proven, "tier: hardware needs the hashes of evidence and appraisal policy")
	m.check(g.Tier != identity.TierWitnessed || g.Evidence == none && g.Appraisal == none, "tier: a witnessed key of a gateway has no evidence")
}

// isGatewayName reports whether a name is one that a gateway's certificate holds, in
// the one form in which it is read back from there.
func isGatewayName(name string) bool {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Zone() == "" && !addr.Is4In6() && addr.String() == name
	}
	return identity.CheckDomain(name) == nil
}

// Key returns the id of the gateway's key, as the gateway prints it; the zero value
// for a body that could not be signed.
func (g *Gateway) Key() identity.DeviceID {
	id, err := keyID(g.CSRKey)
	if err != nil {
		return identity.DeviceID{}
	}
	return id
}

// Words implements Body.
func (g *Gateway) Words() []string {
	lines := []string{
		"approve a gateway's certificate for " + strings.Join(g.Names, ", "),
		"key, as the gateway prints it: " + g.Key().String(),
		"tier: " + string(g.Tier),
		"valid for: " + periodWords(g.Validity) + " each time",
		"evidence: " + hashWords(g.Evidence),
		"appraised under policy: " + hashWords(g.Appraisal),
		"change: " + g.Change,
	}
	if g.Tier == identity.TierWitnessed {
		lines = append(lines, "NO VENDOR VOUCHES FOR THIS KEY: whoever runs the authority says that it is in the gateway's token")
	}
	return lines
}
