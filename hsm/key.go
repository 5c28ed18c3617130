// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"time"
)

// An Algorithm is a kind of key that Valise uses in hardware.
type Algorithm int

const (
	P384    Algorithm = iota // ECDSA and ECDH on P-384, the default
	P256                     // ECDSA and ECDH on P-256
	Ed25519                  // EdDSA (RFC 8032), PKCS#11 tokens only; for keys that sign the ledger
)

// String names the curve as FIPS 186-5 does.
func (a Algorithm) String() string {
	switch a {
	case P384:
		return "P-384"
	case P256:
		return "P-256"
	case Ed25519:
		return "Ed25519"
	}
	return fmt.Sprintf("algorithm %d", int(a))
}

// Curve returns the algorithm's curve, nil for Ed25519 and unknown ones.
func (a Algorithm) Curve() elliptic.Curve {
	switch a {
	case P384:
		return elliptic.P384()
	case P256:
		return elliptic.P256()
	}
	return nil
}

// AlgorithmOf tells the algorithm of a public key; false for any that Valise
// does not use in hardware.
func AlgorithmOf(pub crypto.PublicKey) (Algorithm, bool) {
	if _, ok := pub.(ed25519.PublicKey); ok {
		return Ed25519, true
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return 0, false
	}
	switch key.Curve {
	case elliptic.P384():
		return P384, true
	case elliptic.P256():
		return P256, true
	}
	return 0, false
}

// Evidence is what hardware says about a key of its own, unverified: package
// attest reads and judges it.
type Evidence struct {
	Format string   // "yubico-piv"
	Chain  [][]byte // DER: the slot's attestation certificate, then the card's f9 certificate
}

// A Key is a private key in hardware. Signatures are ECDSA in ASN.1 DER, and
// Public returns an *ecdsa.PublicKey; only a key that was made as Ed25519 has an
// ed25519.PublicKey and signs messages instead of digests, as crypto/ed25519
// does. It is safe for concurrent use.
type Key interface {
	crypto.Signer

	// Evidence asks the hardware for proof that this key was made in it.
	// It returns ErrNoEvidence where the hardware gives none.
	Evidence(ctx context.Context) (Evidence, error)

	// Close lets go of the key. It does not close the token.
	Close() error
}

// A PINRequest says for what a PIN is asked.
type PINRequest struct {
	Token   string // what the person calls it: a reader's or token's name
	Serial  string // the hardware's serial number
	Retries int    // tries left before it locks; -1 if unknown
}

// A PINFunc obtains the PIN of a token, from a person or a file. It is called
// once for each operation that needs a PIN; a refused PIN is reported as
// *PINError and never tried again by itself.
type PINFunc func(ctx context.Context, r PINRequest) (string, error)

// TokenInfo describes a token.
type TokenInfo struct {
	Kind     string // "piv" or "pkcs11"
	Label    string // reader's name, or the token's label
	Serial   string
	Model    string
	Firmware string
}

// GenerateOptions says what key to make.
type GenerateOptions struct {
	Algorithm Algorithm

	// Name describes the key where the hardware stores such a text.
	Name string

	// ManagementKey authorizes changes on a PIV card. Nil tries the key that
	// cards are delivered with. PKCS#11 tokens do not use it.
	ManagementKey []byte

	// Touch asks for a key that works only while somebody touches the card.
	// It fails on hardware that has no such sensor.
	Touch bool

	// TouchOffered asks for such a key where the hardware takes it, and makes
	// one without where it refuses. Evidence says which of both it became.
	TouchOffered bool

	// Agree makes the key good for ECDH too, where the hardware separates
	// that from signing (PKCS#11). On a PIV card every key can do both.
	Agree bool

	// Overwrite names a reference whose present key may be destroyed. It has
	// no effect unless it equals the reference given to Generate.
	Overwrite string
}

// A Token is one card or HSM. It is safe for concurrent use.
type Token interface {
	Info() TokenInfo

	// Key finds a key: by PIV slot ("9a", "82") or by PKCS#11 object label.
	// It returns ErrNoKey if there is none.
	Key(ctx context.Context, ref string) (Key, error)

	// Generate makes a key in the hardware. It returns ErrOccupied, and
	// changes nothing, if ref holds a key already.
	Generate(ctx context.Context, ref string, o GenerateOptions) (Key, error)

	// Logout clears the hardware's PIN state: whoever comes next, in this
	// process or another, must enter the PIN again.
	Logout(ctx context.Context) error

	// Removed is closed when the card or token went away. A token that can
	// recover by itself (an HSM) never closes it: see Health.
	Removed() <-chan struct{}

	Close() error
}

// A CertificateStore is a Token that keeps a certificate beside each key.
type CertificateStore interface {
	// Certificate returns the DER certificate stored beside ref's key, or
	// ErrNoCertificate.
	Certificate(ctx context.Context, ref string) ([]byte, error)

	// StoreCertificate stores a DER certificate beside ref's key, whose public
	// key it must carry. managementKey is as in GenerateOptions.
	StoreCertificate(ctx context.Context, ref string, der, managementKey []byte) error
}

// Health is the state of a token that recovers by itself.
type Health struct {
	OK       bool
	Since    time.Time // when the present state began
	Err      error     // why it is not OK
	Attempts int       // tries to recover since then
	Restarts uint64    // recoveries since the token was opened
}
