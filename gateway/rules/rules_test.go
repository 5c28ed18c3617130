// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"valise/bulletin"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/policy/bundle"
	"valise/statement"
)

const domain = "interieur.example"

// A scene is a gateway's rules, and who signs what they hold.
type scene struct {
	*paper.Authority
	t          *testing.T
	olga, otto *paper.Officer
	doctrine   *paper.Doctrine
	path       string
	rules      *rules.Rules
	recorded   [][]byte
	set        *bulletin.Set
	states     []*rules.State
	now        func() time.Time // nil: the machine's
	events     []string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	a := paper.New(t, domain)
	s := &scene{
		Authority: a, t: t, olga: a.Officer("olga", identity.RoleOfficer), otto: a.Officer("otto", identity.RoleOfficer),
		doctrine: paper.NewDoctrine(t, "tlp"), path: filepath.Join(t.TempDir(), "bundle.signed"), set: bulletin.NewSet(),
	}
	s.open()
	return s
}

func (s *scene) open() {
	s.t.Helper()
	var err error
	s.rules, err = rules.Open(rules.Config{
		Path: s.path, Now: s.now,
		Verify: func(raw []byte) (*statement.Statement, error) {
			return statement.Verify(raw, s.Trust(), s.RootHash(), time.Now())
		},
		Statements: func(context.Context, [32]byte) ([][]byte, error) { return s.recorded, nil },
		Event: func(_ context.Context, event, reason string, _ ...slog.Attr) error {
			s.events = append(s.events, event+" "+reason)
			return nil
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.rules.Apply(func(state *rules.State) { s.states = append(s.states, state) })
}

// file is a version of the bundle, signed, and its hash.
func (s *scene) file(version uint32, change func(fstest.MapFS), officers ...*paper.Officer) (file []byte, hash [32]byte) {
	s.t.Helper()
	folder := s.doctrine.Folder("", bundle.Domains{Unlabelled: true})
	if change != nil {
		change(folder)
	}
	c, err := bundle.Pack(folder, version)
	if err != nil {
		s.t.Fatal(err)
	}
	if hash, err = c.Hash(); err != nil {
		s.t.Fatal(err)
	}
	_, file = paper.SignBundle(s.t, c, [32]byte{}, officers...)
	return file, hash
}

// names has the next bulletin name a bundle.
func (s *scene) names(hash [32]byte) {
	s.t.Helper()
	b := s.Bulletin(s.set.Number() + 1)
	b.Bundle = hash
	var err error
	if s.set, err = s.set.WithBulletin(b); err != nil {
		s.t.Fatal(err)
	}
	s.rules.Follow(s.t.Context(), s.set)
}

func (s *scene) want(version uint32, missing bool) {
	s.t.Helper()
	state := s.rules.Now()
	if last := s.states[len(s.states)-1]; last != state {
		s.t.Error("what was applied is not what is in force")
	}
	if version == 0 && !missing {
		if state != nil {
			s.t.Errorf("in force: %+v", state)
		}
		return
	}
	if state == nil || state.Missing != missing || (state.Bundle == nil) != (version == 0) || version > 0 && state.Bundle.Version != version {
		s.t.Errorf("in force: %+v, want version %d, missing %v", state, version, missing)
	}
	if (s.rules.Check(s.t.Context()) != nil) != missing {
		s.t.Errorf("check: %v", s.rules.Check(s.t.Context()))
	}
}

func (s *scene) event(line string) {
	s.t.Helper()
	if !slices.Contains(s.events, line) {
		s.t.Errorf("the audit stream has no %q: %q", line, s.events)
	}
}

// A bundle waits for the bulletin that names it, and survives a restart.
func TestBundleWaitsForBulletin(t *testing.T) {
	s := newScene(t)
	one, hash := s.file(1, nil, s.olga, s.otto)
	if err := s.rules.Offer(t.Context(), one); !errors.Is(err, rules.ErrWaits) {
		t.Fatalf("before any bulletin: %v", err)
	}
	s.event("bundle_waits ")
	s.names([32]byte{})
	s.want(0, false)
	s.names(hash)
	s.want(1, false)
	s.event("bundle_in_force ")
	s.open()
	s.want(0, false)
	s.rules.Follow(t.Context(), s.set)
	s.want(1, false)

	two, next := s.file(2, nil, s.olga, s.otto)
	if err := s.rules.Offer(t.Context(), two); !errors.Is(err, rules.ErrWaits) {
		t.Fatalf("before its bulletin: %v", err)
	}
	s.want(1, false)
	s.names(next)
	s.want(2, false)
	if string(s.rules.Now().File) != string(two) {
		t.Error("another file is served")
	}
}

// While the authority names a bundle that is not here, nothing else counts.
func TestMissingBundle(t *testing.T) {
	s := newScene(t)
	one, hash := s.file(1, nil, s.olga, s.otto)
	two, next := s.file(2, nil, s.olga, s.otto)
	s.names(hash)
	s.want(0, true)
	s.event("bundle_missing bundle_not_in_force")
	if err := s.rules.Offer(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	s.want(1, false)
	s.names(next)
	s.want(1, true)
	if err := s.rules.Offer(t.Context(), one); err == nil {
		t.Error("the one that was replaced is in force again")
	}
	s.want(1, true)
	if err := s.rules.Offer(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	s.want(2, false)
}

// Each file differs from the honest one in one property; the old one stays in force.
func TestOfferRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		version  uint32
		change   func(fstest.MapFS)
		officers func(s *scene) []*paper.Officer
		damage   func([]byte) []byte
		reason   string
	}{
		"honest":        {version: 3},
		"one officer":   {version: 3, officers: func(s *scene) []*paper.Officer { return []*paper.Officer{s.olga} }, reason: "bundle_signatures"},
		"one twice":     {version: 3, officers: func(s *scene) []*paper.Officer { return []*paper.Officer{s.olga, s.olga} }, reason: "bundle_signatures"},
		"a stranger":    {version: 3, officers: func(s *scene) []*paper.Officer { return []*paper.Officer{s.olga, stranger(s)} }, reason: "bundle_signatures"},
		"older":         {version: 1, reason: "bundle_rollback"},
		"same version":  {version: 2, change: func(f fstest.MapFS) { f[bundle.RulesFile].Data = []byte("\n") }, reason: "bundle_rollback"},
		"cut short":     {version: 3, damage: func(b []byte) []byte { return b[:len(b)-1] }, reason: "bundle_malformed"},
		"a failed test": {version: 3, change: failTest, reason: "bundle_test_failed"},
		"a permit":      {version: 3, change: func(f fstest.MapFS) { f[bundle.RulesFile].Data = []byte("permit (principal, action, resource);") }, reason: "bundle_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			two, hash := s.file(2, nil, s.olga, s.otto)
			s.names(hash)
			if err := s.rules.Offer(t.Context(), two); err != nil {
				t.Fatal(err)
			}
			officers := []*paper.Officer{s.olga, s.otto}
			if c.officers != nil {
				officers = c.officers(s)
			}
			file, next := s.file(c.version, c.change, officers...)
			if c.damage != nil {
				file = c.damage(file)
			}
			s.names(next)
			err := s.rules.Offer(t.Context(), file)
			if c.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				s.want(c.version, false)
				return
			}
			if err == nil {
				t.Error("taken")
			}
			s.want(2, true)
			s.event("bundle_refused " + c.reason)
		})
	}
}

func stranger(s *scene) *paper.Officer {
	return paper.New(s.t, domain).Officer("otto", identity.RoleOfficer)
}

// failTest lets the bundle's second test want what does not come.
func failTest(f fstest.MapFS) {
	text := string(f[bundle.TestsFile].Data)
	f[bundle.TestsFile].Data = []byte(text[:len(text)-len(`"no_clearance"}]`)] + `"rule"}]`)
}

// A file that was laid down with one signature counts once the record holds two, and
// is served with both.
func TestSignaturesOfTheRecord(t *testing.T) {
	s := newScene(t)
	c, err := bundle.Pack(s.doctrine.Folder("", bundle.Domains{}), 1)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := c.Hash()
	if err != nil {
		t.Fatal(err)
	}
	both, _ := paper.SignBundle(t, c, [32]byte{}, s.olga, s.otto)
	first, err := (&bundle.Signed{Contents: c, Statements: both[:1]}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.rules.Offer(t.Context(), first); !errors.Is(err, rules.ErrWaits) {
		t.Fatal(err)
	}
	s.recorded = both[1:]
	s.names(hash)
	s.want(0, true)
	s.event("bundle_refused bundle_signatures")
	s.recorded = both
	s.names(hash)
	s.want(1, false)
	served, err := bundle.ParseSigned(s.rules.Now().File)
	if err != nil || len(served.Statements) != 2 {
		t.Errorf("served with %d statements: %v", len(served.Statements), err)
	}
}

// A restart forgets no version: an older bundle does not come back with a fresh
// process, and a damaged copy is not overlooked.
func TestRollbackOverRestart(t *testing.T) {
	s := newScene(t)
	one, first := s.file(1, nil, s.olga, s.otto)
	two, second := s.file(2, nil, s.olga, s.otto)
	s.names(second)
	if err := s.rules.Offer(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.names(first)
	if err := s.rules.Offer(t.Context(), one); !errors.Is(err, bundle.ErrRollback) {
		t.Errorf("got %v", err)
	}
	s.want(0, true)
	s.event("bundle_refused bundle_rollback")

	if err := os.WriteFile(s.path, two[:len(two)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rules.Open(rules.Config{Path: s.path, Verify: func([]byte) (*statement.Statement, error) { return nil, nil }}); err == nil {
		t.Error("half a copy was opened")
	}
}

// A restart after the last day of a policy finds the bundle in force; a new one past its
// dates is refused all the same.
func TestInForceOutlivesItsDates(t *testing.T) {
	s := newScene(t)
	id := s.doctrine.ID.String()
	until := func(end time.Time) func(fstest.MapFS) {
		return func(f fstest.MapFS) {
			f[bundle.DomainsFile].Data = []byte(`{"unlabelled":true,"domains":[],"tiers":[],"staleness":[],"defaults":[{"domain":"` + domain +
				`","label":{"policy":"` + id + `","classification":"GREEN"}}]}`)
			s.doctrine.Until(f, end)
		}
	}
	end := time.Now().Add(time.Hour)
	one, first := s.file(1, until(end), s.olga, s.otto)
	two, second := s.file(2, until(end), s.olga, s.otto)
	s.names(first)
	if err := s.rules.Offer(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return end.Add(time.Hour) }
	s.open()
	s.rules.Follow(t.Context(), s.set)
	s.want(1, false)

	s.names(second)
	if err := s.rules.Offer(t.Context(), two); err == nil {
		t.Error("a new bundle with a policy that has ended is taken")
	}
	s.want(1, true)
	s.event("bundle_refused bundle_invalid")
}
