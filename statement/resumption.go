// SPDX-License-Identifier: Apache-2.0

package statement

// A Resumption ends the suspensions of its target.
type Resumption struct {
	Target Target
	Reason string
	Change string // 128 random bits, from NewID
}

// Kind implements Body.
func (*Resumption) Kind() Kind { return KindResumption }

func (r *Resumption) members(m *members) {
	r.Target.members(m)
	m.text("reason", &r.Reason)
	m.id("change", &r.Change)
}

// Words implements Body.
func (r *Resumption) Words() []string {
	lines := r.Target.words()
	lines[0] = "resume " + lines[0]
	return append(lines, "reason: "+r.Reason, "change: "+r.Change)
}
