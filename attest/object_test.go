// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/elliptic"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// An object goes out and comes back, with and without the second key, and
// what it carries verifies (draft-ietf-acme-device-attest-09, Section 5).
func TestAttestationObject(t *testing.T) {
	s := honestScene(t, newMaker(t), elliptic.P384())
	ev := Evidence{
		Format:        FormatYubicoPIV,
		Chain:         [][]byte{s.card.statement("9a", s.key.Public()), s.card.cert.Raw},
		KeyManagement: [][]byte{s.card.statement("9d", s.secondKey), s.card.cert.Raw},
	}
	for _, second := range []bool{true, false} {
		if !second {
			ev.KeyManagement = nil
		}
		data, err := MarshalAttestationObject(NewAttestationObject(ev, s.answer))
		if err != nil {
			t.Fatal(err)
		}
		o, err := ParseAttestationObject(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(o.Evidence(), ev) {
			t.Error("other evidence came back")
		}
		claims, err := Verify(o.Evidence(), o.Challenge(s.keyAuthorization), s.maker.endorsements(), judgedAt)
		if err != nil || claims.Fresh != True || (claims.KeyManagement != nil) != second {
			t.Errorf("second key %v: %+v, %v", second, claims, err)
		}
		r := new(AppraisalPolicy).Appraise(claims, s.input)
		if r.Accepted() != second || !second && r.Reason() != ReasonUnstated {
			t.Errorf("second key %v: %s %s", second, r.Verdict, r.Reason())
		}
	}
}

// The bytes are fixed: RFC 8949, Section 4.2.1, keys in the order of their
// encodings, which puts "alg" first.
func TestAttestationObjectBytes(t *testing.T) {
	data, err := MarshalAttestationObject(&AttestationObject{
		Algorithm: AlgES256, Signature: []byte{1, 2}, Chain: [][]byte{{3}, {4}}, KeyManagement: [][]byte{{5}},
	})
	want := "a2" + "63666d74" + "6473746570" + // "fmt": "step"
		"6761747453746d74" + "a4" + // "attStmt": 4 members
		"63616c67" + "26" + "63736967" + "420102" + // "alg": -7, "sig"
		"63783563" + "8241034104" + "657835633964" + "814105" // "x5c", "x5c9d"
	if err != nil || hex.EncodeToString(data) != want {
		t.Errorf("%x, %v, want %s", data, err, want)
	}
}

// What clients in the field send: keys in any order, and authData.
func TestAttestationObjectFromOthers(t *testing.T) {
	data, err := cbor.Marshal(map[string]any{
		"authData": []byte{}, "fmt": "step",
		"attStmt": map[string]any{"x5c": [][]byte{{3}}, "alg": -7, "sig": []byte{1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAttestationObject(data); err != nil {
		t.Error(err)
	}
}

func TestAttestationObjectRefuses(t *testing.T) {
	type m = map[string]any
	statement := func(changes m) m {
		st := m{"alg": -7, "sig": []byte{1}, "x5c": [][]byte{{3}, {4}}}
		for k, v := range changes {
			if st[k] = v; v == nil {
				delete(st, k)
			}
		}
		return m{"fmt": "step", "attStmt": st}
	}
	encode := func(v any) []byte {
		data, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	honest := encode(statement(nil))
	if _, err := ParseAttestationObject(honest); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	unhex := func(s string) []byte {
		data, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	many := make([][]byte, MaxEvidenceCertificates+1)
	for i := range many {
		many[i] = []byte{1}
	}
	null := cbor.RawMessage{0xf6}
	for name, test := range map[string]struct {
		data []byte
		want Reason
	}{
		"empty":               {nil, ReasonNoEvidence},
		"too large":           {make([]byte, MaxObjectSize+1), ReasonMalformed},
		"no map":              {encode([]int{1}), ReasonMalformed},
		"cut":                 {honest[:len(honest)-1], ReasonMalformed},
		"trailing":            {append(bytes.Clone(honest), 0), ReasonMalformed},
		"no format":           {encode(m{"attStmt": statement(nil)["attStmt"]}), ReasonUnknownFormat},
		"none":                {encode(m{"fmt": "none", "attStmt": m{}}), ReasonNoEvidence},
		"packed":              {encode(m{"fmt": "packed", "attStmt": m{}}), ReasonUnknownFormat},
		"format in bytes":     {encode(m{"fmt": []byte("step"), "attStmt": statement(nil)["attStmt"]}), ReasonMalformed},
		"no statement":        {encode(m{"fmt": "step"}), ReasonMalformed},
		"another member":      {encode(m{"fmt": "step", "attStmt": statement(nil)["attStmt"], "x": 1}), ReasonMalformed},
		"capitals":            {encode(m{"FMT": "step", "attStmt": statement(nil)["attStmt"]}), ReasonMalformed},
		"more in statement":   {encode(statement(m{"ver": "2.0"})), ReasonMalformed},
		"no alg":              {encode(statement(m{"alg": nil})), ReasonMalformed},
		"no sig":              {encode(statement(m{"sig": nil})), ReasonMalformed},
		"sig null":            {encode(statement(m{"sig": null})), ReasonMalformed},
		"sig of numbers":      {encode(statement(m{"sig": []int{1, 2}})), ReasonMalformed},
		"sig text":            {encode(statement(m{"sig": "ab"})), ReasonMalformed},
		"sig too long":        {encode(statement(m{"sig": make([]byte, maxSignature+1)})), ReasonMalformed},
		"no x5c":              {encode(statement(m{"x5c": nil})), ReasonNoEvidence},
		"x5c empty":           {encode(statement(m{"x5c": [][]byte{}})), ReasonNoEvidence},
		"x5c of numbers":      {encode(statement(m{"x5c": []any{[]int{1}}})), ReasonMalformed},
		"x5c one string":      {encode(statement(m{"x5c": []byte{1}})), ReasonMalformed},
		"x5c of nothing":      {encode(statement(m{"x5c": [][]byte{{}}})), ReasonMalformed},
		"x5c too many":        {encode(statement(m{"x5c": many})), ReasonMalformed},
		"x5c9d too many":      {encode(statement(m{"x5c9d": many})), ReasonMalformed},
		"x5c certificate big": {encode(statement(m{"x5c": [][]byte{make([]byte, MaxCertificateSize+1)}})), ReasonMalformed},
		"alg text":            {encode(statement(m{"alg": "ES256"})), ReasonMalformed},
		"alg float":           {encode(statement(m{"alg": -7.0})), ReasonMalformed},
		"alg null":            {encode(statement(m{"alg": null})), ReasonMalformed},
		"a key twice":         {unhex("a3 63666d74 6473746570 63666d74 6473746570 6761747453746d74 a0"), ReasonMalformed},
		"twice within":        {unhex("a2 63666d74 6473746570 6761747453746d74 a4 63616c67 26 63616c67 26 63736967 4101 63783563 814103"), ReasonMalformed},
		"indefinite":          {unhex("bf 63666d74 6473746570 ff"), ReasonMalformed},
		"a tag":               {append([]byte{0xd9, 0xd9, 0xf7}, honest...), ReasonMalformed},
		"deeply nested":       {encode(statement(m{"x5c": [][][][][]int{{{{{1}}}}}})), ReasonMalformed},
	} {
		if o, err := ParseAttestationObject(test.data); ReasonOf(err) != test.want {
			t.Errorf("%s: %+v, error %v, want %s", name, o, err, test.want)
		}
	}
}

// What parses is written in one form, which parses to the same and is written
// to the same bytes.
func FuzzAttestationObject(f *testing.F) {
	for _, o := range []*AttestationObject{
		{Algorithm: AlgES256, Signature: []byte{1}, Chain: [][]byte{{3}, {4}}},
		{Algorithm: AlgES384, Signature: []byte{1}, Chain: [][]byte{{3}}, KeyManagement: [][]byte{{5}, {6}}},
	} {
		data, err := MarshalAttestationObject(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := ParseAttestationObject(data)
		if err != nil {
			if ReasonOf(err) == "" {
				t.Errorf("error without a reason: %v", err)
			}
			return
		}
		once, err := MarshalAttestationObject(o)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseAttestationObject(once)
		if err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("%+v comes back as %+v, %v", o, again, err)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"min_firmware":"5.7.2","slots":["9a"],"denied_serials":[1,2]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			return
		}
		n, err := p.normal()
		if err != nil {
			t.Fatal(err)
		}
		a, errA := p.Hash()
		b, errB := n.Hash()
		if errA != nil || errB != nil || a != b {
			t.Errorf("the normal form hashes otherwise: %v %v", errA, errB)
		}
	})
}
