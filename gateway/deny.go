// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"valise/identity"
)

// denyList holds devices that the operator keeps out although their
// certificates are valid. A list is never changed, only replaced.
type denyList map[identity.DeviceID]bool

// maxDenied bounds the list: one line is 65 bytes.
const maxDenied = 1_000_000

// ParseDenied reads a list of device ids, one a line; empty lines and lines
// that begin with # are skipped. Any other line is an error: a list that is
// read half is worse than the old one.
func ParseDenied(r io.Reader) (map[identity.DeviceID]bool, error) {
	list := make(map[identity.DeviceID]bool)
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		id, err := identity.ParseDeviceID(text)
		if err != nil {
			return nil, fmt.Errorf("deny list, line %d: %w", n, err)
		}
		if len(list) == maxDenied {
			return nil, fmt.Errorf("deny list: more than %d devices", maxDenied)
		}
		list[id] = true
	}
	return list, lines.Err()
}
