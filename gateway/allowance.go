// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"valise/identity"
	"valise/wire"
)

// An allowance is what one device may use up, over all its connections: connecting
// again does not fill it up.
type allowance struct {
	limits *Limits
	audit  *auditor

	requests *rate.Limiter // messages, and what else is asked for
	bytes    *rate.Limiter // of messages
	fanout   *rate.Limiter // deliveries that its messages become

	held atomic.Int64 // until when the device is kept out; nanoseconds since 1970, 0: it is not

	mu     sync.Mutex
	labels map[string]*rate.Limiter // guarded by mu; by classification
	alarm  *rate.Limiter            // guarded by mu; refusals that an honest device does not cause
	raised int                      // guarded by mu; alarms without a quiet window between them
	quiet  time.Time                // guarded by mu; when the last alarm's window is over
}

func newAllowance(l *Limits, audit *auditor) *allowance {
	return &allowance{
		limits: l, audit: audit,
		requests: rate.NewLimiter(rate.Limit(l.Rate), l.Burst),
		bytes:    rate.NewLimiter(rate.Limit(l.Bytes), l.BytesBurst),
		fanout:   rate.NewLimiter(rate.Limit(l.Deliveries), l.DeliveriesBurst),
		alarm:    rate.NewLimiter(rate.Limit(float64(l.AlarmAfter)/l.AlarmWindow.Seconds()), l.AlarmAfter),
	}
}

// ask takes what a request costs. The dearest one still passes with a full allowance.
func (a *allowance) ask(now time.Time, cost int) bool {
	return a.requests.AllowN(now, min(cost, a.limits.Burst))
}

// send takes what a message costs beyond its request, and returns the reason code of what is used up, or
// "". classification is its label's, or "" without one. What was taken before the part
// that is used up stays taken: whoever tries on while it is refused gains nothing.
func (a *allowance) send(now time.Time, bytes, deliveries int, classification string) string {
	switch {
	case !a.bytes.AllowN(now, min(bytes, a.limits.BytesBurst)):
		return "bytes_limited"
	case !a.fanout.AllowN(now, min(deliveries, a.limits.DeliveriesBurst)):
		return "fanout_limited"
	}
	if len(a.limits.Labels) == 0 || classification == "" {
		return ""
	}
	if l := a.label(classification); l != nil && !l.AllowN(now, 1) {
		return "label_limited"
	}
	return ""
}

// label returns the bucket of a classification that has a limit, or nil.
func (a *allowance) label(classification string) *rate.Limiter {
	limit, ok := a.limits.Labels[classification]
	if !ok {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.labels[classification]
	if l == nil {
		if a.labels == nil {
			a.labels = make(map[string]*rate.Limiter)
		}
		l = rate.NewLimiter(rate.Limit(limit.Rate), limit.Burst)
		a.labels[classification] = l
	}
	return l
}

// isHeld tells whether the device is kept out at present.
func (a *allowance) isHeld(now time.Time) bool {
	until := a.held.Load()
	return until != 0 && now.UnixNano() < until
}

// honest are the refusals that a device in order may run into: a race with somebody
// else's commit, a full mailbox, a queue that is used up, an operator's or officers'
// decision that it does not know yet, trouble of the gateway's own or of the network.
var honest = map[string]bool{
	"stale_epoch": true, "mailbox_full": true, "rate_limited": true, "bytes_limited": true, "fanout_limited": true,
	"label_limited": true, "tunnel_limited": true, "commit_attempts": true, "recipient_denied": true, "removal_due": true, "unavailable": true,
	"added_device_denied": true, "added_device_unknown": true, "group_exists": true, "too_many_packages": true,
	"expired": true, "old_incarnation": true, "unknown_group": true, "held": true, "bulletin_stale": true,
	"stale_bulletin": true, "no_bulletin": true, "stale_for_label": true, "slow_frame": true, "other_bundle": true, "bundle_not_in_force": true,
}

// A consequence is what follows from a refusal.
type consequence int

const (
	nothing consequence = iota
	alarmed             // too many refusals in a short time
	held                // and so often that the device is kept out for a while
)

// refused counts a refusal that an honest device does not cause. Too many within the
// window are an alarm; HoldAfter alarms, each within a window of the one before, keep
// the device out for HoldFor.
func (a *allowance) refused(now time.Time, reason string) consequence {
	if honest[reason] {
		return nothing
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.alarm.AllowN(now, 1) {
		return nothing
	}
	a.alarm = rate.NewLimiter(a.alarm.Limit(), a.alarm.Burst())
	if now.After(a.quiet) {
		a.raised = 0
	}
	a.raised++
	a.quiet = now.Add(a.limits.AlarmWindow)
	if a.limits.HoldAfter == 0 || a.raised < a.limits.HoldAfter {
		return alarmed
	}
	a.raised = 0
	a.held.Store(now.Add(a.limits.HoldFor).UnixNano())
	return held
}

// allowances keeps what devices may send, and write to the audit stream.
type allowances struct {
	limits *Limits
	audit  func() *auditor

	mu  sync.Mutex
	all map[identity.DeviceID]*allowance // guarded by mu
}

// maxAllowances bounds the allowances in memory, about 1 KiB each.
const maxAllowances = 100_000

// of returns a device's allowance. When there are too many, those of devices that are
// not held out are begun anew.
func (a *allowances) of(d identity.DeviceID, now time.Time) *allowance {
	a.mu.Lock()
	defer a.mu.Unlock()
	own, ok := a.all[d]
	if ok {
		return own
	}
	if len(a.all) >= maxAllowances {
		for id, other := range a.all {
			if !other.isHeld(now) {
				delete(a.all, id)
			}
		}
	}
	own = newAllowance(a.limits, a.audit())
	if len(a.all) < maxAllowances {
		a.all[d] = own
	}
	return own
}

// consider does what follows from a refusal: the alarm stands in the audit stream and in
// the metrics, where an officer sees it; a device that goes on is kept out for a while,
// by this gateway's own decision. Cutting it off for good is the officers'.
func (s *session) consider(reason string) {
	now := s.g.now()
	what := s.allowance.refused(now, reason)
	if what == nothing {
		return
	}
	attrs := append(about(s.device, s.remote), slog.String("last", reason), slog.Int("refusals", s.g.limits.AlarmAfter))
	s.g.metrics.alarms.Inc()
	s.audit.event(eventAlarm, "repeated_refusals", attrs...)
	if what == held {
		s.audit.event(eventHeld, "repeated_refusals", append(attrs, slog.Time("until", time.Unix(0, s.allowance.held.Load()).UTC()))...)
		s.close(wire.CloseNotAdmitted, "held")
	}
}
