// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"crypto"
	"io"
	"time"

	"valise/hsm"
)

// Timed is a key whose signatures somebody counts: observe is told how long each took,
// or how it failed. The key cannot agree (ECDH) through it.
func Timed(key hsm.Key, observe func(took time.Duration, err error)) hsm.Key {
	return timed{key, observe}
}

type timed struct {
	hsm.Key
	observe func(time.Duration, error)
}

// Sign implements crypto.Signer.
func (k timed) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	began := time.Now()
	signature, err := k.Key.Sign(random, digest, opts)
	k.observe(time.Since(began), err)
	return signature, err
}
