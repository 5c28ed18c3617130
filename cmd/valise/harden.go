// SPDX-License-Identifier: Apache-2.0

package main

import "valise/internal/memory"

// harden comes before everything else: a PIN and the vault's key are in this process.
func harden() error { return memory.Guard() }
