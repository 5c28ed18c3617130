// SPDX-License-Identifier: Apache-2.0

package enrolltest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"valise/attest"
)

// An HSM is the double of a Google Cloud HSM: a key, and a statement about it in
// the shape of Marvell LiquidSecurity, certified under a maker's and an owner's root.
type HSM struct {
	Key       *ecdsa.PrivateKey
	Statement []byte
	Chain     [][]byte // DER: partition and card, by the maker and by the owner
	Roots     []byte   // PEM
}

// Evidence returns what is shown for the key.
func (h *HSM) Evidence() *attest.Evidence {
	return &attest.Evidence{Format: attest.FormatMarvell, Chain: append([][]byte{h.Statement}, h.Chain...)}
}

// NewHSM makes an HSM with a key in it. Its statement says that the key can be
// extracted, if extractable is set.
func NewHSM(t testing.TB, extractable bool) *HSM {
	t.Helper()
	var keys [4]*rsa.PrivateKey // maker, owner, card, partition
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	maker, card := pkix.Name{CommonName: "Test maker of HSMs"}, pkix.Name{CommonName: "HSM:1.0-TEST, for FIPS mode"}
	partition := pkix.Name{CommonName: "HSM:1.0-TEST:PARTN:1, for FIPS mode"}
	makerRoot := oldCertificate(t, maker, maker, &keys[0].PublicKey, keys[0])
	madeCard := oldCertificate(t, card, maker, &keys[2].PublicKey, keys[0])
	plain := func(name pkix.Name) *x509.Certificate {
		return &x509.Certificate{SerialNumber: serial(), Subject: name, NotBefore: made, NotAfter: ends}
	}
	template := plain(pkix.Name{CommonName: "Test owner of HSMs"})
	template.IsCA, template.BasicConstraintsValid = true, true
	ownerRoot := create(t, template, template, &keys[1].PublicKey, keys[1])
	h := &HSM{Key: newKey(t, elliptic.P256()), Chain: [][]byte{
		create(t, plain(partition), madeCard, &keys[3].PublicKey, keys[2]).Raw, madeCard.Raw,
		create(t, plain(partition), ownerRoot, &keys[3].PublicKey, keys[1]).Raw,
		create(t, plain(card), ownerRoot, &keys[2].PublicKey, keys[1]).Raw,
	}}
	for _, root := range []*x509.Certificate{makerRoot, ownerRoot} {
		h.Roots = append(h.Roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	}
	h.Statement = statementOf(t, h.Key, extractable, keys[3])
	return h
}

// statementOf writes what attest/marvell_statement.go reads.
func statementOf(t testing.TB, key *ecdsa.PrivateKey, extractable bool, signer *rsa.PrivateKey) []byte {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	yes := []byte{1}
	leaves := []byte{0}
	if extractable {
		leaves = yes
	}
	type attribute struct {
		kind  uint32
		value []byte
	}
	be := binary.BigEndian
	object := func(handle uint32, attributes ...attribute) []byte {
		var body []byte
		for _, a := range attributes {
			body = append(be.AppendUint32(be.AppendUint32(body, a.kind), uint32(len(a.value))), a.value...)
		}
		head := be.AppendUint32(be.AppendUint32(nil, handle), uint32(len(attributes)))
		return append(be.AppendUint32(head, uint32(len(body))), body...)
	}
	public := object(1, attribute{0, []byte{2}}, attribute{0x100, []byte{3}}, attribute{0x120, point})
	private := object(2, attribute{0, []byte{3}}, attribute{0x100, []byte{3}}, attribute{0x120, point}, attribute{0x103, yes},
		attribute{0x162, leaves}, attribute{0x163, yes}, attribute{0x164, yes}, attribute{0x165, yes})
	size := 8 + len(public) + len(private)
	var out []byte
	for _, n := range []int{0, 3, 32 + size + 256, size, 0, 1, 0, 2, 1<<16 | 3, 8<<16 | 8 + len(public)} {
		out = be.AppendUint32(out, uint32(n))
	}
	out = append(append(out, public...), private...)
	sum := sha256.Sum256(out)
	signature, err := rsa.SignPKCS1v15(nil, signer, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(out, signature...)
}

// oldCertificate is of X.509 version 1, which crypto/x509 does not make. It ended
// soon after it was made, as the real maker's root did.
func oldCertificate(t testing.TB, subject, issuer pkix.Name, key *rsa.PublicKey, signer *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
	marshal := func(v any) []byte {
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	tbs := marshal(struct {
		Serial    *big.Int
		Algorithm pkix.AlgorithmIdentifier
		Issuer    pkix.RDNSequence
		Validity  struct{ From, Until time.Time }
		Subject   pkix.RDNSequence
		Key       asn1.RawValue
	}{
		serial(), algorithm, issuer.ToRDNSequence(),
		struct{ From, Until time.Time }{made, made.Add(time.Hour)},
		subject.ToRDNSequence(),
		asn1.RawValue{FullBytes: spki},
	})
	sum := sha256.Sum256(tbs)
	signature, err := rsa.SignPKCS1v15(nil, signer, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}}))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
