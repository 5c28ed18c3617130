// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto"
	"math/big"
	"testing"

	"golang.org/x/crypto/ocsp"
)

// Whatever we take for a request, other people's parser reads the same from it.
func FuzzOCSPRequest(f *testing.F) {
	f.Add([]byte("\x30\x00"))
	f.Add([]byte("\x30\x02\x30\x00"))
	control := &ocsp.Request{
		HashAlgorithm: crypto.SHA256, IssuerNameHash: make([]byte, 32), IssuerKeyHash: make([]byte, 32), SerialNumber: big.NewInt(1),
	}
	der, err := control.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	if q, err := parseOCSPRequest(der); err != nil || !bytes.Equal(q.serial, []byte{1}) {
		f.Fatalf("control: %+v, %v", q, err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		q, err := parseOCSPRequest(der)
		if err != nil {
			return
		}
		theirs, err := ocsp.ParseRequest(der)
		if err != nil {
			return // it is stricter about what we read over
		}
		if theirs.HashAlgorithm != q.hash || !bytes.Equal(theirs.IssuerKeyHash, q.keyHash) || !bytes.Equal(theirs.IssuerNameHash, q.nameHash) ||
			!bytes.Equal(theirs.SerialNumber.Bytes(), q.serial) {
			t.Errorf("%+v is read as %+v", theirs, q)
		}
	})
}
