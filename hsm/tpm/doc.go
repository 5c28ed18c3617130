// SPDX-License-Identifier: Apache-2.0

// Package tpm keeps keys in a TPM 2.0. It needs no cgo.
//
//	token, err := tpm.Open(ctx, tpm.Config{PIN: keys.PINPrompt(nil)}) // /dev/tpmrm0
//	key, err := token.Generate(ctx, "9a", hsm.GenerateOptions{})
//
// A key is made below the TPM's storage key (TPM2_Create), so that it can never
// leave, and kept at a persistent handle. It is named by that handle in eight
// hexadecimal digits, or by two, as PIV slots are: "9a" stands for 8156419a.
//
// Every key has a PIN as its authorization value. Wrong ones count against the
// TPM's own limit, which holds for all its keys: after a few it locks, and opens by
// itself some time later. The TPM remembers no PIN; a Token does, from the first
// use until Logout. It travels neither in clear nor in a form that can be guessed
// from: sessions are salted with the storage key (TPM 2.0 Part 1, Section 19.6).
//
// Evidence is made for one challenge: see [hsm.Certifier], and package attest for
// what it is worth.
//
// Never use /dev/tpm0: it serves one program at a time, and a program that dies
// leaves its keys loaded there.
package tpm
