// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"testing"

	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/statement"
)

// A suspension does not wait for a database that is away. What was refused, what
// gives anything and what no officer signed is told to nobody.
func TestForward(t *testing.T) {
	a := paper.New(t, "interieur.example")
	olga, stranger := a.Officer("olga", identity.RoleOfficer), paper.New(t, "interieur.example").Officer("olga", identity.RoleOfficer)
	target := statement.Target{Kind: statement.TargetDevice, Device: identity.DeviceID{1}}
	stop := &statement.Suspension{Target: target, Reason: "lost", Change: statement.NewID()}
	away := errors.New("the database is away")
	for name, c := range map[string]struct {
		raw  []byte
		err  error
		told bool
	}{
		"the database is away":  {olga.Sign(stop), away, true},
		"a revocation":          {olga.Sign(&statement.Revocation{Target: target, Reason: "stolen", Change: statement.NewID()}), away, true},
		"recorded":              {olga.Sign(stop), nil, false},
		"refused":               {olga.Sign(stop), desk.Refuse("conflict", "no"), false},
		"a resumption":          {olga.Sign(&statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}), away, false},
		"another authority's":   {stranger.Sign(stop), away, false},
		"not signed by anybody": {[]byte("a.b.c"), away, false},
	} {
		t.Run(name, func(t *testing.T) {
			told := 0
			f := &forwarder{
				submit:  func(context.Context, []byte) (call.Outcome, error) { return call.Outcome{}, c.err },
				forward: func([]byte) { told++ },
				trust:   a.Trust(), root: a.RootHash(),
			}
			if _, err := f.Submit(t.Context(), c.raw); !errors.Is(err, c.err) {
				t.Errorf("got %v", err)
			}
			if (told == 1) != c.told || told > 1 {
				t.Errorf("told %d times", told)
			}
		})
	}
}
