// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto"
	"errors"
	"io"
)

// A card is the Signer whose failures can be told from every other error: a card that
// was pulled says nothing about the message that it was to sign.
type card struct{ crypto.Signer }

func (c card) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := c.Signer.Sign(rand, digest, opts)
	if err != nil {
		return nil, &cardError{err}
	}
	return signature, nil
}

// A cardError is why the card did not sign.
type cardError struct{ err error }

func (e *cardError) Error() string { return e.err.Error() }
func (e *cardError) Unwrap() error { return e.err }

func cardFailed(err error) bool {
	var failed *cardError
	return errors.As(err, &failed)
}
