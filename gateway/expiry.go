// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"time"

	"valise/gateway/mailbox"
	"valise/identity"
)

// expireMail takes mail that nobody fetched out of the mailboxes, until ctx ends.
func (g *Gateway) expireMail(ctx context.Context) error {
	ticker := time.NewTicker(expiryInterval)
	defer ticker.Stop()
	started := time.Now()
	clock := steadyClock{wall: g.now()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := g.now()
		if !clock.steady(now, time.Since(started)) {
			g.log.Warn("the clock was changed: no mail expires before it has been steady for a day")
			continue
		}
		if err := g.expireBefore(ctx, now.Add(-g.limits.MailAge)); err != nil && ctx.Err() == nil {
			g.log.Error("mail over age was not taken out of the mailboxes", "error", err)
		}
	}
}

// expireBefore expires what was stored before a moment, in portions, between which
// submissions have their turn.
func (g *Gateway) expireBefore(ctx context.Context, moment time.Time) error {
	for {
		losses, err := g.box.Expire(ctx, moment, expiryPortion)
		if err != nil {
			return err
		}
		n := 0
		for _, l := range losses {
			n += len(l.Lost)
			g.recordLoss(ctx, l)
		}
		g.metrics.expired.Add(float64(n))
		if n < expiryPortion {
			return ctx.Err()
		}
	}
}

// recordLoss puts a loss into the audit stream. It is the gateway's own doing, and
// bounded by what it once took: none is left out.
func (g *Gateway) recordLoss(ctx context.Context, l mailbox.Loss) {
	err := g.cfg.Audit(context.WithoutCancel(ctx), eventExpired, "over_age",
		slog.String("recipient", identity.DeviceID(l.Recipient).String()), slog.String("sender", identity.DeviceID(l.Sender).String()),
		slog.String("group", hexOf(l.Group)), slog.Int("messages", len(l.Lost)), slog.Uint64("first", l.First), slog.Uint64("last", l.Last))
	if err != nil {
		g.log.Error("the audit stream cannot be written", "event", eventExpired, "error", err)
	}
}

// A steadyClock tells whether the machine's clock has gone on as time did: one that
// was set ahead must not expire everybody's mail at once.
type steadyClock struct {
	wall    time.Time
	elapsed time.Duration
	until   time.Duration // not steady before so much has elapsed
}

// steady is told the time and how much of it has elapsed, by a clock that nobody sets.
func (c *steadyClock) steady(wall time.Time, elapsed time.Duration) bool {
	wall = wall.Round(0) // without the reading of the other clock
	if drift := wall.Sub(c.wall.Round(0)) - (elapsed - c.elapsed); drift.Abs() > clockStep {
		c.until = elapsed + clockSettles
	}
	c.wall, c.elapsed = wall, elapsed
	return elapsed >= c.until
}
