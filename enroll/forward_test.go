// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"testing"

	"valise/enroll/desk/call"
	"valise/enroll/enrolltest"
	"valise/internal/store/authority"
	"valise/statement"
)

// A leaf that was recorded under a clock that ran far ahead makes every statement of
// today late for the record. A suspension reaches gateways even so.
func TestStopAfterAClockAhead(t *testing.T) {
	b := newBureau(t)
	b.clock.move(60 * day)
	b.ok(b.Olga, &statement.Refusal{Request: "nothing", Reason: "a clock that is ahead"})
	b.clock.move(-60 * day)
	target := statement.Target{Kind: statement.TargetPerson, Address: address(t, "alice")}
	if _, reason := b.say(b.Olga, &statement.Suspension{Target: target, Reason: "lost", Change: statement.NewID()}); reason != call.ReasonUnavailable || len(b.forwarded) != 1 {
		t.Errorf("got %q, %d forwarded", reason, len(b.forwarded))
	}
	if _, reason := b.say(b.Olga, b.line("bob", nil)); reason == "" || len(b.forwarded) != 1 {
		t.Errorf("got %q", reason)
	}
}

// A suspension that the database does not take reaches gateways all the same, and is
// recorded once it does. What gives anybody anything does not, nor what the rules refuse.
func TestStopWithoutTheRecord(t *testing.T) {
	for name, c := range map[string]struct{ hurt, heal string }{
		"restored": {"INSERT INTO meta (name, value) VALUES ('flag:" + authority.FlagRestored + "', x'00')", "DELETE FROM meta WHERE name = 'flag:" + authority.FlagRestored + "'"},
		"damaged":  {"UPDATE leaves SET id = id + 1000000 WHERE id = (SELECT max(id) FROM leaves)", "UPDATE leaves SET id = id - 1000000 WHERE id > 1000000"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			target := statement.Target{Kind: statement.TargetPerson, Address: address(t, "alice")}
			b.forge(c.hurt)
			raw := b.Olga.Sign(t, b.clock.now(), &statement.Suspension{Target: target, Reason: "lost", Change: statement.NewID()})
			if _, reason := b.hand(raw); reason != call.ReasonUnavailable {
				t.Errorf("handed in: %q", reason)
			}
			if len(b.forwarded) != 1 || !bytes.Equal(b.forwarded[0], raw) {
				t.Fatalf("%d statements were forwarded", len(b.forwarded))
			}
			line := b.Olga.Sign(t, b.clock.now(), b.line("bob", enrolltest.Clearance(t, 1)))
			if _, err := b.Submit(t.Context(), line); err == nil {
				t.Error("a line of the roster was recorded")
			}
			if len(b.forwarded) != 1 {
				t.Error("what gives something was forwarded")
			}
			b.forge(c.heal)
			out, reason := b.hand(raw)
			if reason != "" || out.State != call.OutcomeRecorded || len(b.forwarded) != 1 {
				t.Errorf("handed in again: %+v %q", out, reason)
			}
			if _, reason := b.say(b.Aude, &statement.Suspension{Target: target, Reason: "lost", Change: statement.NewID()}); reason == "" || len(b.forwarded) != 1 {
				t.Errorf("an auditor's was taken: %q", reason)
			}
		})
	}
}
