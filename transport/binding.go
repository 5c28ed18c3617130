// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
)

// bindingLabel separates these exporter secrets from all others (RFC 8446,
// Section 7.5).
const bindingLabel = "EXPORTER-valise-attach"

// Binding is what proves to the holder of both connections that their other end is
// one and the same: HMAC-SHA-256 of the second one's exporter secret under the
// first one's. Whoever is at the end of only one of them, or between the ends of
// either, cannot compute it, and it is of no use on a third.
func Binding(first, second tls.ConnectionState) (token [32]byte, err error) {
	key, err := first.ExportKeyingMaterial(bindingLabel, nil, sha256.Size)
	if err != nil {
		return token, err
	}
	text, err := second.ExportKeyingMaterial(bindingLabel, nil, sha256.Size)
	if err != nil {
		return token, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return [32]byte(mac.Sum(nil)), nil
}
