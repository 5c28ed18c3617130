// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"errors"
	"fmt"
	"slices"

	"valise/attest"
)

// officerSlot is where officers' keys are: SP 800-73-4, Part 1, Table 2, gives 9c
// to digital signatures, with the PIN at each of them.
const officerSlot = "9c"

// OfficerPolicy returns p with the defaults of officers' keys: slot 9c and no other,
// PIN at every signature, no second key. It refuses a policy that names anything
// looser; everything else (firmware, roots, touch, …) is the policy's own.
func OfficerPolicy(p attest.AppraisalPolicy) (*attest.AppraisalPolicy, error) {
	if len(p.Slots) == 0 {
		p.Slots = []string{officerSlot}
	}
	if len(p.PINPolicies) == 0 {
		p.PINPolicies = []string{attest.PINAlways.String()}
	}
	if p.KeyManagement == "" {
		p.KeyManagement = attest.KeyManagementIgnored
	}
	if err := checkOfficerPolicy(&p); err != nil {
		return nil, err
	}
	return &p, p.Check()
}

// checkOfficerPolicy refuses what must not be said of officers' keys.
func checkOfficerPolicy(p *attest.AppraisalPolicy) error {
	if p == nil {
		return errors.New("officers' appraisal policy: there is none")
	}
	if !slices.Equal(p.Slots, []string{officerSlot}) {
		return fmt.Errorf("officers' appraisal policy: slots %q, but officers sign with %s alone", p.Slots, officerSlot)
	}
	for _, pin := range p.PINPolicies {
		if pin != attest.PINAlways.String() && pin != attest.PINMatchAlways.String() {
			return fmt.Errorf("officers' appraisal policy: PIN policy %q: an officer's key asks every time (%v, or %v for a fingerprint)",
				pin, attest.PINAlways, attest.PINMatchAlways)
		}
	}
	if len(p.PINPolicies) == 0 {
		return errors.New("officers' appraisal policy: it names no PIN policy")
	}
	if p.KeyManagement != attest.KeyManagementIgnored {
		return fmt.Errorf("officers' appraisal policy: key_management is %q: an officer's card has no second key to judge", p.KeyManagement)
	}
	return nil
}
