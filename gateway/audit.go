// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/time/rate"

	"valise/identity"
)

// The events of the audit stream.
const (
	eventRefusedConnection = "connection_refused" // before or during Hello
	eventClosedConnection  = "connection_closed"  // by the gateway, with a reason
	eventRefusedRequest    = "request_refused"
	eventRefusedBlob       = "file_refused"
	eventRefusedTunnel     = "tunnel_refused"
	eventTunnel            = "tunnel_opened" // to the authority
	eventBegan             = "incarnation_begun"
	eventBehind            = "state_behind" // a device showed an older state than the one on record
	eventRejected          = "delivery_rejected"
	eventQuarantined       = "mailbox_quarantined" // its device is suspended, or its person off the roster
	eventReleased          = "mailbox_released"
	eventTightened         = "standings_age" // how many classifications a stale bulletin takes has changed; no reason: fewer
	eventClock             = "clock_moved"
	eventPurged            = "mailbox_deleted" // its device is revoked
	eventExpired           = "mail_expired"    // nobody fetched it in time; both ends are told
	eventWithheld          = "mail_withheld"   // its recipient may not have it any more; both ends are told
	eventAlarm             = "alarm"           // a device is refused so often that somebody should look
	eventHeld              = "device_held"     // and is kept out for a while
)

// AuditFunc writes one line of the audit stream; reason may be empty.
type AuditFunc func(ctx context.Context, event, reason string, attrs ...slog.Attr) error

// auditor writes to the audit stream and bounds what one source can write there:
// a stranger must not be able to fill the disk with refusals. What is left out
// is counted in the next line of that source.
type auditor struct {
	write AuditFunc
	log   *slog.Logger
	limit *rate.Limiter

	mu      sync.Mutex
	skipped int // guarded by mu
}

// Lines that one device, and all strangers together, may cause.
const (
	auditRate  = 50
	auditBurst = 500
)

func newAuditor(write AuditFunc, log *slog.Logger) *auditor {
	return &auditor{write: write, log: log, limit: rate.NewLimiter(auditRate, auditBurst)}
}

func (a *auditor) event(event, reason string, attrs ...slog.Attr) {
	a.mu.Lock()
	if !a.limit.Allow() {
		a.skipped++
		a.mu.Unlock()
		return
	}
	if a.skipped > 0 {
		attrs = append(attrs, slog.Int("left_out", a.skipped))
		a.skipped = 0
	}
	a.mu.Unlock()
	if err := a.write(context.Background(), event, reason, attrs...); err != nil {
		a.log.Error("the audit stream cannot be written", "event", event, "reason", reason, "error", err)
	}
}

// record writes what the gateway itself has to say, without a bound.
func (g *Gateway) record(event, reason string, attrs ...slog.Attr) {
	if err := g.cfg.Audit(context.Background(), event, reason, attrs...); err != nil {
		g.log.Error("the audit stream cannot be written", "event", event, "reason", reason, "error", err)
	}
}

// about describes a device whose certificate was verified.
func about(d *identity.Device, remote string) []slog.Attr {
	attrs := []slog.Attr{slog.String("remote", remote)}
	if d != nil {
		attrs = append(attrs, slog.String("device", d.ID.String()), slog.String("address", d.Address.String()))
	}
	return attrs
}
