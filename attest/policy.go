// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// An AppraisalPolicy says which hardware an authority accepts. The zero value
// is the default policy; an empty list means its default, never "anything".
// The struct is what stands in TOML and JSON; unknown keys are errors there.
type AppraisalPolicy struct {
	// MinFirmware is the oldest firmware, "5.7.0" by default: older ones leak
	// ECDSA keys to whoever holds the card (Yubico's advisory YSA-2024-03).
	MinFirmware string `json:"min_firmware" toml:"min_firmware"`

	// AcceptVulnerableFirmware must be set, besides a lower MinFirmware, to
	// accept a real card below 5.7.0. Under configured roots, where virtual
	// cards are, MinFirmware alone decides.
	AcceptVulnerableFirmware bool `json:"accept_vulnerable_firmware" toml:"accept_vulnerable_firmware"`

	// Slots are those that the certified key may sit in: by default 9a and
	// the retired slots 82 to 95. With 9c in it, keys in 9c must ask for the
	// PIN every time, whatever PINPolicies says.
	Slots []string `json:"slots" toml:"slots"`

	// KeyManagement says what to do about the second key: "required" (the
	// default), "optional" or "ignored". An officer's 9c has no second key.
	KeyManagement string `json:"key_management" toml:"key_management"`

	// KeyManagementSlots are those that the second key may sit in: by default 9d.
	KeyManagementSlots []string `json:"key_management_slots" toml:"key_management_slots"`

	// PINPolicies are those accepted: by default all but "never".
	PINPolicies []string `json:"pin_policies" toml:"pin_policies"`

	// TouchPolicies are those accepted: by default all.
	TouchPolicies []string `json:"touch_policies" toml:"touch_policies"`

	// FormFactors are those accepted: by default all that are known.
	FormFactors []string `json:"form_factors" toml:"form_factors"`

	// Algorithms are those accepted: by default P-256 and P-384, and no other
	// can be named.
	Algorithms []string `json:"algorithms" toml:"algorithms"`

	// DeniedSerials are serial numbers of cards that are never accepted.
	DeniedSerials []uint64 `json:"denied_serials" toml:"denied_serials"`

	// Roots are the SHA-256 fingerprints of the accepted roots, hexadecimal:
	// by default all endorsed ones.
	Roots []string `json:"roots" toml:"roots"`

	// RequireFIPS and RequireCSPN ask for cards of a certified series.
	RequireFIPS bool `json:"require_fips" toml:"require_fips"`
	RequireCSPN bool `json:"require_cspn" toml:"require_cspn"`

	// TPM accepts keys that a TPM 2.0 certifies. What a TPM does not state (slot,
	// firmware, PIN and touch policy, form factor) is not asked of it.
	TPM bool `json:"tpm" toml:"tpm"`

	// Witnessed accepts keys in cards that cannot attest, with tier "witnessed":
	// such a certificate needs two officers who say that they saw the key made.
	Witnessed bool `json:"witnessed" toml:"witnessed"`

	// ValidHours is how long a result may be used to issue, 24 by default: an
	// order that waits longer, for officers or for the token, is refused.
	ValidHours int `json:"valid_hours" toml:"valid_hours"`
}

// firstSound is the first firmware without YSA-2024-03.
var firstSound = Firmware{5, 7, 0}

// The values of AppraisalPolicy.KeyManagement.
const (
	KeyManagementRequired = "required"
	KeyManagementOptional = "optional"
	KeyManagementIgnored  = "ignored"
)

// ParsePolicy reads a policy in JSON and checks it.
func ParsePolicy(data []byte) (*AppraisalPolicy, error) {
	if len(data) > maxPolicySize {
		return nil, fmt.Errorf("appraisal policy: %d bytes, at most %d are allowed", len(data), maxPolicySize)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	p := new(AppraisalPolicy)
	if err := decoder.Decode(p); err != nil {
		return nil, fmt.Errorf("appraisal policy: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("appraisal policy: something follows it")
	}
	return p, p.Check()
}

// Check reports the first value of p that means nothing.
func (p *AppraisalPolicy) Check() error {
	_, err := p.normal()
	return err
}

// Hash returns the SHA-256 of p in its canonical form: defaults written out,
// lists sorted and without repetition, JSON in the order of the fields, behind
// "valise appraisal policy 1" and a zero byte. Two policies that decide alike
// by their text have one hash.
func (p *AppraisalPolicy) Hash() ([32]byte, error) {
	n, err := p.normal()
	if err != nil {
		return [32]byte{}, err
	}
	text, err := n.json()
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(append([]byte("valise appraisal policy 1\x00"), text...)), nil
}

// Canonical returns p's canonical form in JSON, which Hash is over. ParsePolicy
// reads it back.
func (p *AppraisalPolicy) Canonical() ([]byte, error) {
	n, err := p.normal()
	if err != nil {
		return nil, err
	}
	return n.json()
}

func (p *AppraisalPolicy) json() ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("appraisal policy: %w", err)
	}
	return text, nil
}

// normal returns p with its defaults, in canonical order, or what is wrong.
func (p *AppraisalPolicy) normal() (*AppraisalPolicy, error) {
	n := *p
	if n.MinFirmware == "" {
		n.MinFirmware = firstSound.String()
	}
	if _, err := ParseFirmware(n.MinFirmware); err != nil {
		return nil, fmt.Errorf("appraisal policy: min_firmware: %w", err)
	}
	if n.KeyManagement == "" {
		n.KeyManagement = KeyManagementRequired
	}
	if n.ValidHours == 0 {
		n.ValidHours = 24
	}
	if n.ValidHours < 0 || n.ValidHours > 24*366 {
		return nil, fmt.Errorf("appraisal policy: valid_hours: %d is not within a year", n.ValidHours)
	}
	for _, list := range []struct {
		name            string
		values          *[]string
		known, defaults []string
	}{
		{"slots", &n.Slots, pivSlots, append(RetiredSlots(), "9a")},
		{"key_management_slots", &n.KeyManagementSlots, pivSlots, []string{"9d"}},
		{"pin_policies", &n.PINPolicies, names(pinNames), without(names(pinNames), "never")},
		{"touch_policies", &n.TouchPolicies, names(touchNames), names(touchNames)},
		{"form_factors", &n.FormFactors, names(formNames), names(formNames)},
		{"algorithms", &n.Algorithms, []string{"P-256", "P-384"}, []string{"P-256", "P-384"}},
		{"roots", &n.Roots, nil, nil},
	} {
		if err := normalList(list.values, list.known, list.defaults); err != nil {
			return nil, fmt.Errorf("appraisal policy: %s: %w", list.name, err)
		}
	}
	if !slices.Contains([]string{KeyManagementRequired, KeyManagementOptional, KeyManagementIgnored}, n.KeyManagement) {
		return nil, fmt.Errorf("appraisal policy: key_management: %.40q is not required, optional or ignored", n.KeyManagement)
	}
	for _, root := range n.Roots {
		if raw, err := hex.DecodeString(root); err != nil || len(raw) != sha256.Size || root != strings.ToLower(root) {
			return nil, fmt.Errorf("appraisal policy: roots: %.80q is not a SHA-256 in lower-case hexadecimal", root)
		}
	}
	if len(n.DeniedSerials) > maxDenied {
		return nil, fmt.Errorf("appraisal policy: denied_serials: more than %d", maxDenied)
	}
	n.DeniedSerials = slices.Compact(slices.Sorted(slices.Values(n.DeniedSerials)))
	return &n, nil
}

func normalList(list *[]string, known, defaults []string) error {
	values := *list
	if len(values) > maxPolicyList {
		return fmt.Errorf("more than %d values", maxPolicyList)
	}
	if len(values) == 0 {
		values = defaults
	}
	for _, v := range values {
		if known != nil && !slices.Contains(known, v) {
			return fmt.Errorf("%.40q is not one of %s", v, strings.Join(known, ", "))
		}
	}
	*list = slices.Compact(slices.Sorted(slices.Values(values)))
	return nil
}

func (p *AppraisalPolicy) lifetime() time.Duration { return time.Duration(p.ValidHours) * time.Hour }

func names[T ~uint8](m map[T]string) []string { return slices.Sorted(maps.Values(m)) }

func without(list []string, value string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == value })
}
