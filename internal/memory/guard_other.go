// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package memory

// Guard has nothing to do here: macOS and Windows leave no core files unasked, and
// ask before one process may look into another.
func Guard() error { return nil }
