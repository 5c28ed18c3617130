// SPDX-License-Identifier: Apache-2.0

// Package pkcs11 uses keys in PKCS#11 tokens (OASIS PKCS#11 v2.40): network
// HSMs, YubiHSM, TPMs, SoftHSM.
//
//	token, err := pkcs11.Open(ctx, pkcs11.Config{
//		Module: "/usr/lib/softhsm/libsofthsm2.so",
//		Label:  "ca",
//		PIN:    keys.PINFromFile("/etc/valise/pin"),
//	})
//	key, err := token.Key(ctx, "issuing")
//
// # Which token
//
// A token is named by label or serial, never by slot number, which changes.
// An empty label is an error: a wrong PIN on somebody else's token locks it.
//
// # One owner, many sessions
//
// A module is loaded once in a process however often it is opened, because
// C_Initialize and login are per process (PKCS#11, Section 5.4). Each token has
// a bounded pool of sessions, and an operation takes one for itself.
//
// # When the HSM restarts
//
// Errors are of three classes. A request that failed is returned. A lost
// session, login or handle is made anew and the operation is tried once more.
// When the device is lost, only C_Finalize and C_Initialize bring it back:
// the module does so at once, and then again with pauses from 2 to 30 seconds,
// logs in, and finds the keys again. No handle from before is used after.
// Meanwhile operations return hsm.ErrDevice at once, and Health says so.
//
// A call that never returns from a vendor's library cannot be ended by anybody:
// Health says so, and only restarting the program helps.
//
// The PIN is not kept: each login asks Config.PIN. A service that is to come
// back unattended reads it from a file. A refused PIN is never sent again by
// itself.
//
// Ed25519 keys (CKM_EDDSA) sign the ledger's checkpoints. p11-kit 0.24 does not relay
// that mechanism: such a key needs the HSM's own module.
//
// Attributes like CKA_SENSITIVE are not evidence, and this package gives none.
//
// It needs cgo; without it, it is empty.
package pkcs11
