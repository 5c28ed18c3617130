// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Attestation certificates of virtual cards are valid as long as Yubico's
// are, whatever the clock says: what is judged is the evidence, not its age.
var (
	notBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2052, 1, 1, 0, 0, 0, 0, time.UTC)
)

// A Root signs the attestation certificates (F9) of virtual cards. Several
// cards may share one, so that an authority under test trusts one root.
type Root struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewRoot makes a root in memory. No two are alike.
func NewRoot() (*Root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial := randomSerial()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("Attestation root of virtual cards %x", serial.Bytes()[:4])},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Root{Certificate: cert, key: key}, nil
}

// OpenRoot reads the root in the file, or makes it if there is none.
func OpenRoot(path string) (*Root, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		return parseRoot(path, data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	root, err := NewRoot()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(root.key)
	if err != nil {
		return nil, err
	}
	text := append(root.PEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	// Whoever loses the race to make the file takes the winner's root.
	temp, err := writeTemp(filepath.Dir(path), text)
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, path); errors.Is(err, fs.ErrExist) {
		return OpenRoot(path)
	} else if err != nil {
		return nil, err
	}
	return root, nil
}

func parseRoot(path string, data []byte) (*Root, error) {
	first, rest := pem.Decode(data)
	second, _ := pem.Decode(rest)
	if first == nil || second == nil || first.Type != "CERTIFICATE" || second.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("testcard: %s does not hold the root of virtual cards: use another file name to make one", path)
	}
	cert, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, fmt.Errorf("testcard: root %s: %w", path, err)
	}
	private, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, fmt.Errorf("testcard: root %s: %w", path, err)
	}
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("testcard: root %s: key and certificate do not belong together", path)
	}
	return &Root{Certificate: cert, key: key}, nil
}

// PEM returns the root certificate for whoever is to trust it.
func (r *Root) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate.Raw})
}

// randomSerial returns a positive certificate serial number of 16 bytes.
func randomSerial() *big.Int {
	b := randomBytes(16)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}
