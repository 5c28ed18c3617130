// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
)

// A PSKType is external or resumption, RFC 9420, Section 8.4.
type PSKType uint8

const (
	PSKExternal   PSKType = 1
	PSKResumption PSKType = 2
)

// A PSKUsage says what a resumption secret is used for, RFC 9420, Section 8.4.
type PSKUsage uint8

const (
	PSKApplication PSKUsage = 1
	PSKReInit      PSKUsage = 2
	PSKBranch      PSKUsage = 3
)

// A PSKID names a pre-shared key, RFC 9420, Section 8.4.
type PSKID struct {
	Type    PSKType
	ID      []byte   // PSKExternal
	Usage   PSKUsage // PSKResumption
	GroupID []byte   // PSKResumption
	Epoch   uint64   // PSKResumption
	Nonce   []byte   // fresh, of the suite's hash size; empty is filled in
}

// readPSKID decodes, RFC 9420, Section 8.4:
//
//	struct {
//	    PSKType psktype;
//	    select (PreSharedKeyID.psktype) {
//	        case external:   opaque psk_id<V>;
//	        case resumption: ResumptionPSKUsage usage;
//	                         opaque psk_group_id<V>; uint64 psk_epoch;
//	    };
//	    opaque psk_nonce<V>;
//	} PreSharedKeyID;
func readPSKID(r *reader) PSKID {
	p := PSKID{Type: PSKType(r.u8())}
	switch p.Type {
	case PSKExternal:
		p.ID = r.opaque()
	case PSKResumption:
		p.Usage, p.GroupID, p.Epoch = PSKUsage(r.u8()), r.opaque(), r.u64()
		if p.Usage < PSKApplication || p.Usage > PSKBranch {
			r.fail()
		}
	default:
		r.fail()
	}
	p.Nonce = r.opaque()
	return p
}

func (p PSKID) append(b []byte) []byte {
	b = append(b, byte(p.Type))
	if p.Type == PSKExternal {
		b = appendOpaque(b, p.ID)
	} else {
		b = appendU64(appendOpaque(append(b, byte(p.Usage)), p.GroupID), p.Epoch)
	}
	return appendOpaque(b, p.Nonce)
}

func (p PSKID) equal(o PSKID) bool { return bytes.Equal(p.append(nil), o.append(nil)) }

// A psk is a pre-shared key with its name.
type psk struct {
	id     PSKID
	secret []byte
}

// pskSecret combines pre-shared keys, RFC 9420, Section 8.4:
//
//	struct { PreSharedKeyID id; uint16 index; uint16 count; } PSKLabel;
func (s *suiteParams) pskSecret(psks []psk) []byte {
	secret := s.zero()
	for i, p := range psks {
		label := appendU16(appendU16(p.id.append(nil), uint16(i)), uint16(len(psks)))
		input := s.expandWithLabel(s.extract(s.zero(), p.secret), "derived psk", label, s.nh())
		secret = s.extract(input, secret)
	}
	return secret
}

// findPSKs looks up secrets in the given order.
func findPSKs(ids []PSKID, lookup func(PSKID) ([]byte, error)) ([]psk, error) {
	if len(ids) > maxPSKs {
		return nil, fmt.Errorf("%w: %d pre-shared keys", ErrInvalidCommit, len(ids))
	}
	var out []psk
	for _, id := range ids {
		secret, err := lookup(id)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnknownPSK, err)
		}
		if secret == nil {
			return nil, ErrUnknownPSK
		}
		out = append(out, psk{id, secret})
	}
	return out, nil
}

func (c *Config) psk(id PSKID) ([]byte, error) {
	if c.PSK == nil {
		return nil, nil
	}
	return c.PSK(id)
}
