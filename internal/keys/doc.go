// SPDX-License-Identifier: Apache-2.0

// Package keys opens hardware keys by URI:
//
//	piv:                              the only card
//	piv:9a                            the key in slot 9a of the only card
//	piv:9c?serial=9681620             of the card with this serial number
//	piv:9a?reader=yubikey             of the card in a reader with this in its name
//	pkcs11:token=ca?module-path=/usr/lib/softhsm/libsofthsm2.so
//	pkcs11:token=ca;object=issuing?module-path=…&pin-source=/etc/valise/pin
//	tpm:9a                            the key in this place of the computer's TPM
//	tpm:81000100?path=/dev/tpmrm1     at this persistent handle of that TPM
//
// Those of PKCS #11 are RFC 7512. All kinds take pin-source, the absolute path of
// a file with the PIN.
//
//	key, err := keys.OpenKey(ctx, "piv:9a", keys.PINPrompt(nil))
//	defer key.Close()
//
// A PIN comes from a file that only its owner can read, or from a person at a
// terminal: never from the environment, never from a URI, which ends up in logs
// and process lists. No message of this package repeats a URI as it was given.
//
// Without cgo the package builds, parses URIs, and opens TPMs only.
package keys
