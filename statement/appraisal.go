// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"crypto/sha256"
	"fmt"
)

// An Appraisal is the policy by which evidence is judged from now on.
type Appraisal struct {
	Change   string   // 128 random bits, from NewID
	Policy   []byte   // canonical JSON of attest.AppraisalPolicy
	Previous [32]byte // BodyDigest of the last one, zero if there was none
}

// Kind implements Body.
func (*Appraisal) Kind() Kind { return KindAppraisal }

func (a *Appraisal) members(m *members) {
	m.id("change", &a.Change)
	m.octets("policy", &a.Policy, 2, maxFile)
	m.hash("previous", &a.Previous)
}

// Words implements Body. The policy stands in it as it is, quoted.
func (a *Appraisal) Words() []string {
	return []string{
		"judge evidence by this policy from now on, and every device again",
		fmt.Sprintf("policy: SHA-256 %x", sha256.Sum256(a.Policy)),
		fmt.Sprintf("text: %q", a.Policy),
		"takes the place of: " + hashWords(a.Previous),
		"change: " + a.Change,
	}
}
