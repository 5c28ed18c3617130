// SPDX-License-Identifier: Apache-2.0

// Package vault keeps a device's local state sealed: group secrets, messages,
// contacts, whatever waits to be sent. It is one SQLite file that says nothing
// to whoever copies it but how many cells it has, and how large they are.
//
//	v, err := vault.Create(ctx, path, device, card) // once
//	v, err := vault.Open(ctx, path, device, card)   // at every unlock
//	err = v.Update(ctx, func(tx *vault.Tx) error {
//		return tx.Put("conversation", nil, id, record)
//	})
//	v.Lock() // wipes the key; the Vault is of no use afterwards
//
// # Keys
//
// A random store key seals every cell. It stands in the file wrapped for a
// recipient, a key in hardware that can agree on secrets (slot 9d of a card):
//
//	KEK = HKDF-SHA-384(ECDH(card, ephemeral), salt = ephemeral ‖ recipient,
//	                   info = label ‖ device id ‖ version)
//	wrapped = AES-256-GCM(KEK, zero nonce, store key), used once
//
// Each unlock wraps it anew under a fresh ephemeral key, so that an older copy
// of the file tells nothing about a later wrapping. The schema holds a list of
// recipients; one is written.
//
// # Cells
//
// A cell is named by table, parent and row. Parents and rows are replaced by
// HMACs under a key derived from the store key, except rows that are
// [Numbered]: counters stay readable for the sake of their order. The value is AES-256-GCM with table ‖ parent ‖ row ‖ version as
// additional data: a value moved to another cell does not open. What a vault
// cannot notice is that the whole file was replaced by an older one; the
// gateway notices it (spec/wire.md, Section 5.3).
//
// Never keep a Tx after its function has returned, and never open a vault from
// two processes at once: the agent's lock file sees to that.
package vault
