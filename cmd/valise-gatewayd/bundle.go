// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"path/filepath"

	"valise/bulletin"
	"valise/gateway/rules"
	"valise/internal/daemon"
	"valise/statement"
)

// openRules takes up the policy bundle that was in force, and the one that the
// operator laid down. Which one counts is for the record and the bulletin to say.
func (s *server) openRules(ctx context.Context, d *daemon.Daemon) error {
	if s.feed == nil {
		if s.cfg.Bundle != "" {
			return errors.New(`configuration: a "bundle" is in force by the authority's record, which is followed under exactly one root`)
		}
		return nil
	}
	var err error
	s.rules, err = rules.Open(rules.Config{
		Path:       filepath.Join(s.cfg.Data, "bundle.signed"),
		Verify:     func(raw []byte) (*statement.Statement, error) { return s.feed.VerifyRecorded(ctx, raw) },
		Statements: s.feed.BundleStatements, Event: s.record, Log: s.log,
	})
	if err != nil {
		return err
	}
	d.Health.Add("bundle", s.rules.Check)
	s.rules.Follow(ctx, s.feed.Set())
	s.readBundle(ctx)
	return nil
}

// readBundle offers the operator's file. What does not hold is in the audit
// stream, and leaves the old one in force.
func (s *server) readBundle(ctx context.Context) {
	if s.rules == nil || s.cfg.Bundle == "" {
		return
	}
	data, err := rules.ReadFile(s.cfg.Bundle)
	if err == nil {
		err = s.rules.Offer(ctx, data)
	}
	switch {
	case errors.Is(err, rules.ErrWaits):
		s.log.Info("the policy bundle waits", "file", s.cfg.Bundle, "reason", err.Error())
	case err != nil:
		s.log.Error("the policy bundle was not taken", "file", s.cfg.Bundle, "error", err.Error())
	}
}

// applyFeed has the gateway obey the authority, and the policy bundle follow its
// bulletins: before standings, so that no message is judged by a bundle that the
// authority has replaced.
func (s *server) applyFeed(ctx context.Context) {
	s.rules.Apply(s.gateway.SetRules)
	s.feed.Apply(func(set *bulletin.Set) {
		s.rules.Follow(ctx, set)
		s.gateway.SetStandings(set)
	})
}
