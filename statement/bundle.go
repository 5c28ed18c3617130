// SPDX-License-Identifier: Apache-2.0

package statement

import "fmt"

// A Bundle puts one version of the policy bundle into force.
type Bundle struct {
	Change   string   // 128 random bits, from NewID
	Hash     [32]byte // SHA-256 of the bundle
	Version  int      // rises
	Previous [32]byte // BodyDigest of the last one, zero if there was none
}

// Kind implements Body.
func (*Bundle) Kind() Kind { return KindBundle }

func (b *Bundle) members(m *members) {
	m.id("change", &b.Change)
	m.mustHash("hash", &b.Hash)
	m.number("version", &b.Version, 1, maxVersion)
	m.hash("previous", &b.Previous)
}

// Words implements Body.
func (b *Bundle) Words() []string {
	return []string{
		fmt.Sprintf("put version %d of the policy bundle into force", b.Version),
		"bundle: SHA-256 " + hashWords(b.Hash),
		"takes the place of: " + hashWords(b.Previous),
		"change: " + b.Change,
	}
}
