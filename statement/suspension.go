// SPDX-License-Identifier: Apache-2.0

package statement

// A Suspension stops its target at once, until a Resumption.
type Suspension struct {
	Target Target
	Reason string
	Change string // 128 random bits, from NewID
}

// Kind implements Body.
func (*Suspension) Kind() Kind { return KindSuspension }

func (s *Suspension) members(m *members) {
	s.Target.members(m)
	m.text("reason", &s.Reason)
	m.id("change", &s.Change)
}

// Words implements Body.
func (s *Suspension) Words() []string {
	lines := s.Target.words()
	lines[0] = "suspend " + lines[0]
	return append(lines, "reason: "+s.Reason, "change: "+s.Change)
}
