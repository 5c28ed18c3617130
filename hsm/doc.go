// SPDX-License-Identifier: Apache-2.0

// Package hsm says what Valise asks of hardware that holds keys: a PIV card
// in an official's pocket or a PKCS#11 token in a server.
//
// A [Token] is one card or one HSM partition; a [Key] is one private key in
// it. A Key is a [crypto.Signer]; one that can agree on secrets is a
// [crypto/ecdh.KeyExchanger] too, which callers find out by asserting:
//
//	key, err := token.Key(ctx, "9a")
//	...
//	if kx, ok := key.(ecdh.KeyExchanger); ok { secret, err = kx.ECDH(peer) }
//
// The hardware itself is in hsm/piv and hsm/pkcs11, which need cgo. This
// package does not, so that everything that only uses keys builds without it.
// Programs open tokens through internal/keys, by URI.
//
// Errors here carry a remedy: [Hint] finds it in a chain of wrapped errors.
//
// Never retry after a [PINError] without asking a person: each try costs one
// of a few, and the last one locks the card. Never take an attribute that a
// module reports for evidence that a key is in hardware: only [Evidence] is.
package hsm
