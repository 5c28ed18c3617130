// SPDX-License-Identifier: Apache-2.0

package mls

import "sync/atomic"

// A primitive is an operation that RFC 9420 takes from elsewhere, and on which
// nearly all time is spent.
type primitive int

const (
	opSeal     primitive = iota // HPKE: encapsulate, seal one secret
	opOpen                      // HPKE: decapsulate, open one secret
	opSign                      // one signature of the device
	opVerify                    // one signature checked
	opDerive                    // KEM.DeriveKeyPair
	opGenerate                  // KEM.GenerateKey
	opPrivate                   // a stored private key read back
	opExtract                   // KDF.Extract
	opExpand                    // KDF.Expand
	opMAC                       // HMAC
	opAEAD                      // AEAD, seal or open
	opHash                      // hash
	opCheck                     // a public key decoded only to refuse a malformed one
	primitives
)

// counts say how often a suite ran its primitive operations, and over how many
// bytes. Suites have none but in tests: a production call compares with nil.
type counts struct {
	calls, bytes [primitives]atomic.Int64
}

func (c *counts) add(p primitive, bytes int) {
	if c == nil {
		return
	}
	c.calls[p].Add(1)
	c.bytes[p].Add(int64(bytes))
}
