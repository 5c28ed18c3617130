// SPDX-License-Identifier: Apache-2.0

package statement

// A Revocation ends its target for ever, and with it the approvals of its devices.
type Revocation struct {
	Target Target
	Reason string
	Change string // 128 random bits, from NewID
}

// Kind implements Body.
func (*Revocation) Kind() Kind { return KindRevocation }

func (r *Revocation) members(m *members) {
	r.Target.members(m)
	m.text("reason", &r.Reason)
	m.id("change", &r.Change)
}

// Words implements Body.
func (r *Revocation) Words() []string {
	lines := r.Target.words()
	lines[0] = "revoke for ever " + lines[0]
	return append(lines, "reason: "+r.Reason, "change: "+r.Change)
}
