// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"fmt"
	"strconv"
	"strings"

	pivgo "github.com/go-piv/piv-go/v2/piv"

	"valise/hsm"
)

// parseSlot reads a slot's name: SP 800-73-4, Part 1, Section 3 and Part 2,
// Table 4b. The retired slots 82 to 95 stand in when 9a is taken.
func parseSlot(ref string) (pivgo.Slot, error) {
	switch strings.ToLower(ref) {
	case "9a":
		return pivgo.SlotAuthentication, nil
	case "9c":
		return pivgo.SlotSignature, nil
	case "9d":
		return pivgo.SlotKeyManagement, nil
	case "9e":
		return pivgo.SlotCardAuthentication, nil
	}
	if n, err := strconv.ParseUint(ref, 16, 8); err == nil && len(ref) == 2 {
		if slot, ok := pivgo.RetiredKeyManagementSlot(uint32(n)); ok {
			return slot, nil
		}
	}
	return pivgo.Slot{}, fmt.Errorf("piv: slot %q: %w", ref, hsm.ErrSlot)
}

// checkPolicy holds a key to what its slot is for: a key in 9c that was made by
// others to ask once, or never, signs no statements. On firmware before 5.3 the
// policy of an imported key cannot be read, and counts as one that does not ask.
func checkPolicy(slot pivgo.Slot, policy pivgo.PINPolicy) error {
	if slot != pivgo.SlotSignature || policy == pivgo.PINPolicyAlways || policy == pivgo.PINPolicyMatchAlways {
		return nil
	}
	return hsm.ErrPINPolicy
}

// pinPolicyFor is the policy that a new key gets: officers' statements (9c)
// want the PIN every time, as SP 800-73-4, Part 1, Table 2 asks; all others
// want it once.
func pinPolicyFor(slot pivgo.Slot) pivgo.PINPolicy {
	if slot == pivgo.SlotSignature {
		return pivgo.PINPolicyAlways
	}
	return pivgo.PINPolicyOnce
}
