// SPDX-License-Identifier: Apache-2.0

package jws

// maxChain bounds the certificates of a header: leaf, issuer, root, and one
// more for an authority under another one, as package identity has it. Each
// costs a parse and a signature check before anything is believed.
const maxChain = 4
