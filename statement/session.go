// SPDX-License-Identifier: Apache-2.0

package statement

// A Session opens the desk of one server for a few minutes. It decides
// nothing, stands in no record, and is refused wherever a decision is wanted.
type Session struct {
	Nonce  string // from the server, used once
	Server string // the desk's URL, as the officer's settings name it
}

// Kind implements Body.
func (*Session) Kind() Kind { return KindSession }

func (s *Session) members(m *members) {
	m.token("nonce", &s.Nonce)
	m.name("server")
	m.quoted(&s.Server, maxServer)
	m.check(s.Server != "", "server: it is empty")
}

// Words implements Body.
func (s *Session) Words() []string {
	return []string{"open the desk of " + s.Server + ", to read and to hand in what I sign", "nonce: " + s.Nonce}
}
