// SPDX-License-Identifier: Apache-2.0

package statement

// A Refusal ends a request.
type Refusal struct {
	Request string // the order's id
	Reason  string
}

// Kind implements Body.
func (*Refusal) Kind() Kind { return KindRefusal }

func (r *Refusal) members(m *members) {
	m.token("request", &r.Request)
	m.text("reason", &r.Reason)
}

// Words implements Body.
func (r *Refusal) Words() []string {
	return []string{"refuse the request " + r.Request, "reason: " + r.Reason}
}
