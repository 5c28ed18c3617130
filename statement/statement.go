// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"valise/identity"
)

// A Kind is what a statement says; it stands in the header's typ.
type Kind string

// The kinds, one a file.
const (
	KindApproval     Kind = "approval"
	KindRefusal      Kind = "refusal"
	KindSuspension   Kind = "suspension"
	KindResumption   Kind = "resumption"
	KindRevocation   Kind = "revocation"
	KindInvitation   Kind = "invitation"
	KindRoster       Kind = "roster"
	KindRemoval      Kind = "removal"
	KindEndorsements Kind = "endorsements"
	KindAppraisal    Kind = "appraisal"
	KindProfile      Kind = "profile"
	KindAppointment  Kind = "appointment"
	KindDismissal    Kind = "dismissal"
	KindBundle       Kind = "bundle"
	KindSession      Kind = "session"
)

// A row says of a kind how it is made, how many must sign it, and who may.
type row struct {
	body   func() Body
	needs  int // of officers; 0: two if it raises a right, else one
	roles  []identity.Role
	gives  bool // to the person concerned: never signed by them
	large  bool
	within time.Duration // between Time and Expires; 0: MaxLife
}

var (
	officers       = []identity.Role{identity.RoleOfficer}
	administrators = []identity.Role{identity.RoleAdministrator}
	deciders       = []identity.Role{identity.RoleOfficer, identity.RoleAdministrator}
	everyone       = []identity.Role{identity.RoleOfficer, identity.RoleAdministrator, identity.RoleAuditor}
)

var kinds = map[Kind]row{
	KindApproval:     {body: func() Body { return new(Approval) }, gives: true, needs: 2, roles: officers},
	KindRefusal:      {body: func() Body { return new(Refusal) }, needs: 1, roles: officers},
	KindSuspension:   {body: func() Body { return new(Suspension) }, needs: 1, roles: deciders},
	KindResumption:   {body: func() Body { return new(Resumption) }, gives: true, needs: 2, roles: officers},
	KindRevocation:   {body: func() Body { return new(Revocation) }, needs: 1, roles: officers},
	KindInvitation:   {body: func() Body { return new(Invitation) }, gives: true, needs: 1, roles: officers},
	KindRoster:       {body: func() Body { return new(Roster) }, gives: true, roles: officers},
	KindRemoval:      {body: func() Body { return new(Removal) }, needs: 1, roles: officers},
	KindEndorsements: {body: func() Body { return new(Endorsements) }, needs: 2, roles: administrators, large: true},
	KindAppraisal:    {body: func() Body { return new(Appraisal) }, needs: 2, roles: administrators, large: true},
	KindProfile:      {body: func() Body { return new(Profile) }, needs: 2, roles: administrators},
	KindAppointment:  {body: func() Body { return new(Appointment) }, gives: true, needs: 2, roles: administrators},
	KindDismissal:    {body: func() Body { return new(Dismissal) }, needs: 1, roles: administrators},
	KindBundle:       {body: func() Body { return new(Bundle) }, needs: 2, roles: deciders},
	KindSession:      {body: func() Body { return new(Session) }, needs: 1, roles: everyone, within: SessionLife},
}

// Kinds returns all kinds, sorted.
func Kinds() []Kind {
	var all []Kind
	for k := range kinds {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// A Head is what every statement says of itself.
type Head struct {
	Authority [32]byte  // SHA-256 of the root certificate's DER
	ID        string    // 128 random bits, from NewID
	Time      time.Time // of signing, in seconds
	Expires   time.Time // when it can no longer be handed in, in seconds
}

// A Body is what a kind of statement says.
type Body interface {
	Kind() Kind

	// Words tells the whole body in plain words, one fact a line, for the
	// person who is about to sign it.
	Words() []string

	// members writes or reads the body's members, and checks them.
	members(m *members)
}

// A Statement is one signed statement.
type Statement struct {
	Head   Head
	Body   Body
	Signer *identity.Officer // nil until Verify
	Chain  [][]byte          // the certificates in it: the officer's, the issuing one
	Raw    []byte
}

// NewID returns 128 random bits in base64url, for a Head or for a change.
func NewID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return base64.RawURLEncoding.EncodeToString(id)
}

// BodyDigest returns the SHA-256 of a body's kind and canonical form. It is
// the zero value for a body that could not be signed.
func BodyDigest(b Body) [32]byte {
	payload, err := MarshalBody(b)
	if err != nil {
		return [32]byte{}
	}
	return sha256.Sum256(append([]byte("valise-"+string(b.Kind())+"\x00"), payload...))
}

// MarshalBody returns a body in canonical form, or says why it cannot be
// signed.
func MarshalBody(b Body) ([]byte, error) {
	if b == nil {
		return nil, errors.New("statement: no body")
	}
	return write(func(m *members) { m.object(func() { b.members(m) }) })
}

// ParseBody reads a body alone, as it is shown before anybody signed it; it
// accepts exactly what MarshalBody writes. The error is a *Error.
func ParseBody(k Kind, text []byte) (Body, error) {
	row := kinds[k]
	if row.body == nil {
		return nil, refuse(ReasonMalformed, "%.40q is no kind of statement", k)
	}
	if len(text) > MaxLargeSize || !row.large && len(text) > MaxSize {
		return nil, refuse(ReasonTooLarge, "%d octets of a %s", len(text), k)
	}
	b := row.body()
	if err := read(text, func(m *members) { m.object(func() { b.members(m) }) }); err != nil {
		return nil, refuse(ReasonMalformed, "%w", err)
	}
	return b, nil
}

// Needs returns how many persons must sign a kind; raises says, of a roster
// entry, that it gives anybody more than before. It is 0 for unknown kinds.
func Needs(k Kind, raises bool) int {
	row := kinds[k]
	switch {
	case row.body != nil && row.needs == 0 && raises:
		return 2
	case row.body != nil && row.needs == 0:
		return 1
	}
	return row.needs
}

// Allowed returns the roles whose holders may sign a kind, nil for unknown
// kinds. An administrator suspends officers only: [May] looks at the body too.
func Allowed(k Kind) []identity.Role { return slices.Clone(kinds[k].roles) }

// May reports whether a holder of role may sign b.
func May(role identity.Role, b Body) bool {
	if s, ok := b.(*Suspension); ok && role == identity.RoleAdministrator {
		return s.Target.Kind == TargetOfficer
	}
	return slices.Contains(kinds[b.Kind()].roles, role)
}

// Gives reports whether a kind gives the person concerned something: then
// that person must not be among those who sign it.
func Gives(k Kind) bool { return kinds[k].gives }

// Concerns returns the person whom a body is about, the zero Address if it is
// about nobody or about whoever a device, a card or a root turns out to be.
// That person never signs what gives them something ([Gives]).
func Concerns(b Body) identity.Address {
	switch b := b.(type) {
	case *Approval:
		return b.Address
	case *Suspension:
		return b.Target.Address
	case *Resumption:
		return b.Target.Address
	case *Revocation:
		return b.Target.Address
	case *Invitation:
		return b.Address
	case *Roster:
		return b.Address
	case *Removal:
		return b.Address
	case *Appointment:
		return b.Address
	case *Dismissal:
		return b.Address
	}
	return identity.Address{}
}
