// SPDX-License-Identifier: Apache-2.0

// Package memory keeps what a process holds in its memory to itself: PINs for a
// moment, session keys, an unlocked vault.
//
// First call, and the only one: [Guard], at the beginning of main.
package memory
