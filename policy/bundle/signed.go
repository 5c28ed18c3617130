// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"valise/identity"
	"valise/statement"
)

// ErrSignatures is wrapped by errors about who signed a bundle.
var ErrSignatures = errors.New("bundle: not signed by two officers")

// Signed is a bundle with the statements of those who put it into force.
//
//	struct { opaque bundle<1..2^24-1>; opaque statements<0..2^24-1>; } SignedBundle;
//	opaque Statement<1..2^24-1>; // in statements
type Signed struct {
	Contents   *Contents
	Statements [][]byte // of kind "bundle", compact JWS
}

// Marshal returns the encoding, spec/bundle.md, Section 3.
func (s *Signed) Marshal() ([]byte, error) {
	if len(s.Statements) > maxStatements {
		return nil, fmt.Errorf("%w: %d statements", ErrMalformed, len(s.Statements))
	}
	contents, err := s.Contents.Marshal()
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(contents) })
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, raw := range s.Statements {
			if len(raw) == 0 || len(raw) > maxStatement {
				b.SetError(fmt.Errorf("%w: a statement of %d bytes", ErrMalformed, len(raw)))
			}
			b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(raw) })
		}
	})
	return b.Bytes()
}

// ParseSigned reads a signed bundle; nothing in it is trusted before Open.
func ParseSigned(data []byte) (*Signed, error) {
	in, out := cryptobyte.String(data), new(Signed)
	var contents, statements cryptobyte.String
	if len(data) > MaxSize || !in.ReadUint24LengthPrefixed(&contents) || !in.ReadUint24LengthPrefixed(&statements) || !in.Empty() {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	}
	for !statements.Empty() {
		var raw cryptobyte.String
		if len(out.Statements) == maxStatements || !statements.ReadUint24LengthPrefixed(&raw) || len(raw) == 0 || len(raw) > maxStatement {
			return nil, fmt.Errorf("%w: statement %d", ErrMalformed, len(out.Statements)+1)
		}
		out.Statements = append(out.Statements, bytes.Clone(raw))
	}
	var err error
	out.Contents, err = Parse(contents)
	return out, err
}

// A VerifyFunc verifies one statement as of its place in the authority's record:
// signature, officer, standing.
type VerifyFunc func(raw []byte) (*statement.Statement, error)

// Open verifies the signatures, compiles the contents and runs its tests.
func (s *Signed) Open(verify VerifyFunc, now time.Time) (*Bundle, error) {
	if err := s.CheckSignatures(verify); err != nil {
		return nil, err
	}
	return Compile(s.Contents, now)
}

// CheckSignatures wants two persons with two keys who say the same about this
// very bundle. Statements that prove nothing do no harm; too few that do, refuse.
func (s *Signed) CheckSignatures(verify VerifyFunc) error {
	hash, err := s.Contents.Hash()
	if err != nil {
		return err
	}
	type change = [32]byte
	people := make(map[change]map[identity.Address]bool)
	keys := make(map[change]map[identity.DeviceID]bool)
	var why []error
	for _, raw := range s.Statements {
		st, err := verify(raw)
		if err != nil {
			why = append(why, err)
			continue
		}
		body, ok := st.Body.(*statement.Bundle)
		if !ok || st.Signer == nil {
			why = append(why, fmt.Errorf("a statement of kind %s", st.Body.Kind()))
			continue
		}
		if body.Hash != hash || body.Version != int(s.Contents.Version) {
			why = append(why, fmt.Errorf("%s signed version %d with another hash", st.Signer.Address, body.Version))
			continue
		}
		c := statement.BodyDigest(body)
		if people[c] == nil {
			people[c], keys[c] = make(map[identity.Address]bool), make(map[identity.DeviceID]bool)
		}
		people[c][st.Signer.Address], keys[c][st.Signer.Key] = true, true
		if len(people[c]) >= statement.Needs(statement.KindBundle, true) && len(keys[c]) >= statement.Needs(statement.KindBundle, true) {
			return nil
		}
	}
	return errors.Join(append([]error{ErrSignatures}, why...)...)
}
