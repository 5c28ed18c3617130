// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// safetyVersion is hashed first, so that another version of the computation
// never shows the same number.
const safetyVersion = "valise safety number 1\x00"

// SafetyNumber returns the number that two people compare by voice: 60 digits
// in 12 groups of 5 over the devices of both. It does not depend on which side
// computes it nor on the order of devices, and changes when either side's set
// of devices does.
//
//	SHA-512(version ‖ n_1 ‖ ids_1 ‖ n_2 ‖ ids_2), n as uint32, ids sorted and
//	distinct, the lower side first; each group is 5 bytes, big-endian, mod 10^5.
func SafetyNumber(a, b []DeviceID) string {
	sides := []string{safetySide(a), safetySide(b)}
	slices.Sort(sides)
	sum := sha512.Sum512([]byte(safetyVersion + sides[0] + sides[1]))
	groups := make([]string, 12)
	for i := range groups {
		var wide [8]byte
		copy(wide[3:], sum[5*i:5*i+5])
		groups[i] = fmt.Sprintf("%05d", binary.BigEndian.Uint64(wide[:])%100000)
	}
	return strings.Join(groups, " ")
}

func safetySide(ids []DeviceID) string {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, DeviceID.Compare)
	ids = slices.Compact(ids)
	side := binary.BigEndian.AppendUint32(nil, uint32(len(ids)))
	for _, id := range ids {
		side = append(side, id[:]...)
	}
	return string(side)
}
