// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// Yubico's extensions of attestation certificates, under 1.3.6.1.4.1.41482.3.
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3} // three raw bytes
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7} // DER INTEGER
	oidPolicy     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8} // raw: PIN policy, touch policy
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9} // one raw byte
)

// An attestation is the key F9 with the certificate that the root gave it.
type attestation struct {
	PKCS8       []byte `json:"pkcs8"`
	Certificate []byte `json:"certificate"`

	private     crypto.Signer
	certificate *x509.Certificate
}

// newAttestation makes F9 for a card that leaves the factory.
func newAttestation(root *Root, firmware Version) (*attestation, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          randomSerial(),
		Subject:               pkix.Name{CommonName: "Yubico PIV Attestation (virtual card)"},
		NotBefore:             root.Certificate.NotBefore,
		NotAfter:              root.Certificate.NotAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		ExtraExtensions:       []pkix.Extension{firmwareExtension(firmware)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root.Certificate, key.Public(), root.key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	a := &attestation{PKCS8: private, Certificate: der}
	return a, a.parse()
}

func (a *attestation) parse() error {
	k := &slotKey{Algorithm: algP384, PKCS8: a.PKCS8}
	if err := k.parse(); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return err
	}
	a.private, a.certificate = k.private.(crypto.Signer), cert
	return nil
}

// key presents F9 to GET METADATA.
func (a *attestation) key() *slotKey {
	return &slotKey{Algorithm: algP384, PIN: pinNever, Touch: touchNever, Origin: originGenerated, private: a.private}
}

func firmwareExtension(v Version) pkix.Extension {
	return pkix.Extension{Id: oidFirmware, Value: []byte{v.Major, v.Minor, v.Patch}}
}

// attest is Yubico's ATTEST: P1 names the slot. Only a key that was generated
// on the card is attested; 6A80 says that there is none.
func (c *Card) attest(cmd command) ([]byte, status) {
	if cmd.p2 != 0 || !validSlot(cmd.p1) {
		return nil, swWrongParameters
	}
	k := c.state.Keys[slotName(cmd.p1)]
	if k == nil || k.Origin != originGenerated {
		return nil, swWrongData
	}
	der, err := c.state.statement(cmd.p1, k)
	if err != nil {
		return nil, swConditions
	}
	return der, swOK
}

// statement builds the attestation certificate of a slot: issued by F9, with
// F9's dates, and saying slot, firmware, serial number, policies, form factor.
func (s *state) statement(ref byte, k *slotKey) ([]byte, error) {
	serial, err := asn1.Marshal(int64(s.Serial))
	if err != nil {
		return nil, err
	}
	f9 := s.Attestation.certificate
	template := &x509.Certificate{
		SerialNumber: randomSerial(),
		Subject:      pkix.Name{CommonName: "YubiKey PIV Attestation " + slotName(ref)},
		NotBefore:    f9.NotBefore,
		NotAfter:     f9.NotAfter,
		ExtraExtensions: []pkix.Extension{
			firmwareExtension(s.Firmware),
			{Id: oidSerial, Value: serial},
			{Id: oidPolicy, Value: []byte{k.PIN, k.Touch}},
			{Id: oidFormFactor, Value: []byte{s.FormFactor}},
		},
	}
	return x509.CreateCertificate(rand.Reader, template, f9, k.public(), s.Attestation.private)
}
