// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package testenv

import "io/fs"

// owned trusts the temporary folder, which is the user's own on Windows.
func owned(fs.FileInfo) bool { return true }
