// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"time"

	"valise/identity"
	"valise/internal/jws"
)

// Verify reads a statement and checks, as of the time at, everything that its
// own bytes can prove: the signature, the officer's chain to root (the SHA-256
// of a root that t knows), that it is for this authority, that at lies between
// its Time and Expires, that the signer's role may sign it and that it gives
// the signer nothing. The error is a *Error.
//
// What was recorded is verified as of its leaf's time; what arrives, as of now.
func Verify(raw []byte, t *identity.Trust, root [32]byte, at time.Time) (*Statement, error) {
	s, m, err := parse(raw)
	if err != nil {
		return nil, err
	}
	officer, err := t.Officer(s.Chain, at)
	if err != nil {
		return nil, refuse(ReasonSigner, "%w", err)
	}
	if s.Head.Authority != root || officer.Root != root {
		return nil, refuse(ReasonAuthority, "it is for the authority with root %x", s.Head.Authority[:8])
	}
	if err := checkSignature(officer, m); err != nil {
		return nil, err
	}
	if s.Head.Time.After(at.Add(Skew)) {
		return nil, refuse(ReasonEarly, "made at %s, judged as of %s: is a clock wrong?", s.Head.Time.Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	if !at.Before(s.Head.Expires) {
		return nil, refuse(ReasonExpired, "it was to be handed in by %s", s.Head.Expires.Format(time.RFC3339))
	}
	if !May(officer.Role, s.Body) {
		return nil, refuse(ReasonRole, "%s is %s and may not sign this %s", officer.Address, officer.Role, s.Body.Kind())
	}
	if Gives(s.Body.Kind()) && Concerns(s.Body) == officer.Address {
		return nil, refuse(ReasonSelf, "%s signed a statement in their own favour", officer.Address)
	}
	s.Signer = officer
	return s, nil
}

// checkSignature applies RFC 7515, Section 5.2, with the algorithm that the
// certificate's curve fixes, whatever the header says.
func checkSignature(officer *identity.Officer, m *jws.Message) error {
	want, err := jws.Algorithm(officer.Leaf.PublicKey)
	if err != nil {
		return refuse(ReasonAlgorithm, "%w", err)
	}
	if m.Header.Alg != want {
		return refuse(ReasonAlgorithm, "alg is %s, the officer's key takes %s", m.Header.Alg, want)
	}
	if err := m.Verify(officer.Leaf.PublicKey); err != nil {
		return refuse(ReasonSignature, "not one of %s over these bytes: %w", officer.Key, err)
	}
	return nil
}
