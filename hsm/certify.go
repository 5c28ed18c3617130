// SPDX-License-Identifier: Apache-2.0

package hsm

import "context"

// A Certifier is a Token whose evidence is made for one challenge, in two steps:
// a TPM. Keys of such a token return ErrNoEvidence.
type Certifier interface {
	// Endorsement returns the certificate of the token's endorsement key, with
	// what stands above it if the token has that, and the public area of the
	// key that certifies the others.
	Endorsement(ctx context.Context) (chain [][]byte, attestationKey []byte, err error)

	// Activate gives out the secret that was encrypted to the endorsement key for
	// the holder of the attestation key.
	Activate(ctx context.Context, credential, secret []byte) ([]byte, error)

	// Certify has the attestation key sign what it says about a key of this token,
	// and nonce. It returns the key's public area, the statement, the signature.
	Certify(ctx context.Context, key Key, nonce []byte) ([][]byte, error)
}
