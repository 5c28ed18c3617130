// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"valise/attest"
	"valise/identity"
)

// A Plan is what the people of a ceremony agree on before it: one TOML file, read
// out in the room. Unknown keys are errors. A whole file:
//
//	name   = "Founding of interieur.example, 2026-11-22"
//	date   = "2026-11-22"
//	domain = "interieur.example"
//
//	[tokens]
//	root    = "valise-root"
//	issuing = "valise"
//
//	[[officers]]
//	address     = "olga@interieur.example"
//	role        = "officer"
//	application = "olga.json"
//
//	[[officers]]
//	address     = "omar@interieur.example"
//	role        = "officer"
//	application = "omar.json"
//
//	[[profiles]]
//	name = "device"
type Plan struct {
	// Name is the ceremony's. It stands in each application, so that none made
	// for another ceremony can be used.
	Name string `toml:"name"`

	// Date is the day of the ceremony, 2026-11-22. On another day nothing is
	// founded: a plan that is left lying about is no plan.
	Date string `toml:"date"`

	// Domain is the authority's; the configuration must name the same one.
	Domain string `toml:"domain"`

	// Tokens are the hardware that the keys are made in.
	Tokens Tokens `toml:"tokens"`

	// Officers are the first officers, at least two of role "officer".
	Officers []Nominee `toml:"officers"`

	// Profiles say how certificates are issued; "device" must be among them.
	Profiles []Profile `toml:"profiles"`

	// Endorsements and Appraisal decide which devices may enroll.
	Endorsements Endorsements           `toml:"endorsements"`
	Appraisal    attest.AppraisalPolicy `toml:"appraisal"`

	// OfficerAppraisal decides which cards officers may sign with; its
	// defaults are those of OfficerPolicy, and it can only be stricter.
	OfficerAppraisal attest.AppraisalPolicy `toml:"officer-appraisal"`

	// Hash is the SHA-256 of the file, as sha256sum prints it.
	Hash [32]byte `toml:"-"`
}

// Tokens name two PKCS#11 tokens, or one twice, by label or serial number.
type Tokens struct {
	Root    string `toml:"root"`
	Issuing string `toml:"issuing"`
}

// A Nominee is a person who is to be an officer.
type Nominee struct {
	Address     identity.Address `toml:"-"`
	Text        string           `toml:"address"`
	Role        identity.Role    `toml:"role"`
	Application string           `toml:"application"` // file, relative to the plan's own directory
}

// A Profile says how certificates of one kind are issued.
type Profile struct {
	// Name of the profile.
	Name string `toml:"name"`
	// Version begins at 1, which is the default.
	Version int `toml:"version"`
	// Approvals is how many officers approve a certificate; default 2, and at
	// least that: nobody alone can issue.
	Approvals int `toml:"approvals"`
	// Validity of a certificate; default "168h".
	Validity time.Duration `toml:"validity"`
	// Grace is how long after a certificate's end its device may renew without
	// new approvals; default "720h".
	Grace time.Duration `toml:"grace"`
	// Tiers are the tiers that are issued; default "hardware".
	Tiers []identity.Tier `toml:"tiers"`
}

// Endorsements say whose word is taken for hardware.
type Endorsements struct {
	// BuiltIn takes the vendors' published roots; default true.
	BuiltIn *bool `toml:"built-in"`
	// Roots are PEM files of further roots and intermediates, relative to the
	// plan's own directory.
	Roots []string `toml:"roots"`
}

// UseBuiltIn reports whether the vendors' published roots count.
func (e *Endorsements) UseBuiltIn() bool { return e.BuiltIn == nil || *e.BuiltIn }

const (
	defaultApprovals = 2
	defaultValidity  = 7 * 24 * time.Hour
	defaultGrace     = 30 * 24 * time.Hour
	maxValidity      = 397 * 24 * time.Hour // short-lived is the rule; nothing outlives a year and a month
	maxGrace         = 366 * 24 * time.Hour

	// DeviceProfile is the profile that devices enroll under.
	DeviceProfile = "device"
)

// ParsePlan reads a plan and fills in its defaults.
func ParsePlan(data []byte) (*Plan, error) {
	p, err := parsePlan(data)
	if err != nil {
		return nil, fmt.Errorf("ceremony: %w", err)
	}
	return p, nil
}

func parsePlan(data []byte) (*Plan, error) {
	if len(data) > MaxPlanSize {
		return nil, fmt.Errorf("the plan has %d bytes, at most %d are allowed", len(data), MaxPlanSize)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("the plan is not UTF-8")
	}
	p := &Plan{Hash: sha256.Sum256(data)}
	meta, err := toml.Decode(string(data), p)
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return nil, fmt.Errorf("line %d: %s", parse.Position.Line, strings.TrimPrefix(parse.Message, "toml: "))
	}
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "toml: "))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("unknown key %q", unknown[0].String())
	}
	return p, p.check()
}

func (p *Plan) check() error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if _, err := time.Parse(time.DateOnly, p.Date); err != nil {
		return fmt.Errorf("date %.40q: write it as 2026-11-22", p.Date)
	}
	if err := identity.CheckDomain(p.Domain); err != nil {
		return err
	}
	for name, token := range map[string]string{"root": p.Tokens.Root, "issuing": p.Tokens.Issuing} {
		if err := checkName(token); err != nil {
			return fmt.Errorf("tokens.%s: %w", name, err)
		}
	}
	if err := p.checkPeople(); err != nil {
		return err
	}
	if err := p.checkProfiles(); err != nil {
		return err
	}
	if len(p.Endorsements.Roots) > maxFiles {
		return fmt.Errorf("endorsements: more than %d files", maxFiles)
	}
	if !p.Endorsements.UseBuiltIn() && len(p.Endorsements.Roots) == 0 {
		return errors.New("endorsements: without built-in roots and without roots nobody can enroll")
	}
	if err := p.Appraisal.Check(); err != nil {
		return err
	}
	policy, err := OfficerPolicy(p.OfficerAppraisal)
	if err != nil {
		return err
	}
	p.OfficerAppraisal = *policy
	return nil
}

// checkPeople holds the plan to the rules of officers: two of them or more, no
// administrator or at least two, and nobody twice.
func (p *Plan) checkPeople() error {
	if len(p.Officers) > maxPeople {
		return fmt.Errorf("%d officers, at most %d are allowed", len(p.Officers), maxPeople)
	}
	roles := make(map[identity.Role]int)
	seen := make(map[identity.Address]bool)
	for i := range p.Officers {
		n := &p.Officers[i]
		var err error
		if n.Address, err = identity.ParseAddress(n.Text); err != nil {
			return fmt.Errorf("officer %d: %w", i+1, err)
		}
		if n.Address.Domain() != p.Domain {
			return fmt.Errorf("%s is outside %s, the authority's domain", n.Address, p.Domain)
		}
		if seen[n.Address] {
			return fmt.Errorf("%s is named twice: a person has one role", n.Address)
		}
		seen[n.Address] = true
		if _, err := identity.ParseRole(string(n.Role)); err != nil {
			return fmt.Errorf("%s: %w", n.Address, err)
		}
		roles[n.Role]++
		if n.Application == "" {
			return fmt.Errorf("%s: application is not set: name the file that valise officer apply wrote", n.Address)
		}
	}
	if roles[identity.RoleOfficer] < minOfficers {
		return fmt.Errorf("%d of role officer, at least %d are needed: what raises a right needs two", roles[identity.RoleOfficer], minOfficers)
	}
	if roles[identity.RoleAdministrator] == 1 {
		return errors.New("one administrator alone can decide nothing: name none, or at least two")
	}
	return nil
}

func (p *Plan) checkProfiles() error {
	if len(p.Profiles) == 0 {
		p.Profiles = []Profile{{Name: DeviceProfile}}
	}
	if len(p.Profiles) > maxProfiles {
		return fmt.Errorf("%d profiles, at most %d are allowed", len(p.Profiles), maxProfiles)
	}
	seen := make(map[string]bool)
	for i := range p.Profiles {
		f := &p.Profiles[i]
		f.fill()
		if err := f.check(); err != nil {
			return fmt.Errorf("profile %.100q: %w", f.Name, err)
		}
		if seen[f.Name] {
			return fmt.Errorf("profile %q stands there twice", f.Name)
		}
		seen[f.Name] = true
	}
	if !seen[DeviceProfile] {
		return fmt.Errorf("no profile %q: devices enroll under it", DeviceProfile)
	}
	return nil
}

// CheckProfileName reports whether a founding record takes a profile of this name.
func CheckProfileName(name string) bool {
	bad := func(r rune) bool { return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-') }
	return name != "" && len(name) <= maxProfileName && strings.IndexFunc(name, bad) < 0
}

func (f *Profile) fill() {
	if f.Version == 0 {
		f.Version = 1
	}
	if f.Approvals == 0 {
		f.Approvals = defaultApprovals
	}
	if f.Validity == 0 {
		f.Validity = defaultValidity
	}
	if f.Grace == 0 {
		f.Grace = defaultGrace
	}
	if len(f.Tiers) == 0 {
		f.Tiers = []identity.Tier{identity.TierHardware}
	}
}

func (f *Profile) check() error {
	if !CheckProfileName(f.Name) {
		return fmt.Errorf("its name takes 1 to %d of a-z 0-9 and hyphens", maxProfileName)
	}
	switch {
	case f.Version < 1:
		return errors.New("version: it begins at 1")
	case f.Approvals < minOfficers || f.Approvals > maxApprovals:
		return fmt.Errorf("approvals: %d, want %d to %d: nobody alone can issue", f.Approvals, minOfficers, maxApprovals)
	case f.Validity < time.Hour || f.Validity > maxValidity || f.Validity%time.Second != 0:
		return fmt.Errorf("validity: %v, want whole seconds from 1h to %v", f.Validity, maxValidity)
	case f.Grace < 0 || f.Grace > maxGrace || f.Grace%time.Second != 0:
		return fmt.Errorf("grace: %v, want whole seconds up to %v", f.Grace, maxGrace)
	}
	seen := make(map[identity.Tier]bool)
	for _, t := range f.Tiers {
		if t != identity.TierHardware && t != identity.TierWitnessed || seen[t] {
			return fmt.Errorf("tiers: %.40q is unknown or stands there twice", string(t))
		}
		seen[t] = true
	}
	return nil
}

// Occasion is what applications for this ceremony are made for.
func (p *Plan) Occasion() Occasion { return Founding(p.Name) }

// Today refuses a plan on any day but its own; a day either way is allowed for time
// zones.
func (p *Plan) Today(now time.Time) error {
	date, err := time.Parse(time.DateOnly, p.Date)
	if err != nil {
		return fmt.Errorf("ceremony: date: %w", err)
	}
	today, err := time.Parse(time.DateOnly, now.Format(time.DateOnly))
	if err != nil {
		return fmt.Errorf("ceremony: %w", err)
	}
	if away := today.Sub(date).Abs(); away > 24*time.Hour {
		return fmt.Errorf("ceremony: the plan is for %s and today is %s: agree on a date again", p.Date, now.Format(time.DateOnly))
	}
	return nil
}

// Match checks that the application is the nominee's.
func (n *Nominee) Match(a *Application) error {
	if a.Address != n.Address || a.Role != n.Role {
		return fmt.Errorf("ceremony: %s: the application is by %s as %s, and the plan says %s as %s",
			n.Application, a.Address, a.Role, n.Address, n.Role)
	}
	return nil
}

// DistinctKeys checks that no two officers hold one key.
func DistinctKeys(all []*Application) error {
	holder := make(map[string]identity.Address)
	for _, a := range all {
		if other, ok := holder[string(a.Key)]; ok {
			return fmt.Errorf("ceremony: %s and %s apply with one key: each officer signs with a card of their own", other, a.Address)
		}
		holder[string(a.Key)] = a.Address
	}
	return nil
}
