// SPDX-License-Identifier: Apache-2.0

package keys

const (
	// maxURI bounds a URI: the longest honest one holds four labels of 32
	// bytes, percent-encoded, and two paths.
	maxURI = 8192

	// maxPINFile bounds a PIN file: PINs have at most 255 bytes (PKCS#11
	// tokens; PIV has 8), plus an editor's white space.
	maxPINFile = 1024
)
