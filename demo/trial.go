// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
)

// A trial is one intruder beside an honest control. The two differ in one
// property: the control must pass, the intruder must be refused, and the
// server's audit stream must say why.
type trial struct {
	name    string
	reason  string // the code that the audit stream must show
	audit   string // file of the audit stream
	control func(ctx context.Context) error
	attack  func(ctx context.Context) error
}

// run reports whether the intruder was refused as it should be.
func (t *trial) run(ctx context.Context, s *screen) error {
	stream, err := watchAudit(t.audit)
	if err != nil {
		return err
	}
	if err := t.control(ctx); err != nil {
		return fmt.Errorf("%s: the honest control was refused: %w", t.name, err)
	}
	if seen, err := stream.reasons(); err != nil || len(seen) > 0 {
		return fmt.Errorf("%s: the honest control left refusals %q (%v)", t.name, seen, err)
	}
	err = t.attack(ctx)
	if err == nil {
		return fmt.Errorf("%s: the intruder was let in", t.name)
	}
	if errors.Is(err, errTrial) {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	if err := stream.await(ctx, t.reason); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	s.say("✗ %-46s refused: %s", t.name, t.reason)
	return nil
}

// errTrial marks failures of the attack's preparation: they are no refusal.
var errTrial = errors.New("the attack could not be made")

func unprepared(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errTrial, err)
}
