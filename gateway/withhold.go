// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"valise/bulletin"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
	"valise/policy"
	"valise/policy/bundle"
	"valise/wire"
)

// Mail that waits is judged again when it is delivered: since it was admitted its
// recipient's clearance may have been lowered, or another bundle put into force. What the
// recipient may not have any more is taken out of the mailbox for good before anything
// behind it is delivered; both ends are told, and the audit stream.

// A second is what one delivery stream has found out about labels, under one bundle and
// one set of standings.
type second struct {
	bundle *bundle.Bundle
	set    *bulletin.Set
	own    bundle.End
	known  map[string]*bundle.Verdict // by label; nil: granted
}

// lawChanged is called after another bundle or other standings have come into force.
// What was admitted later than that was admitted under them.
func (g *Gateway) lawChanged() { g.lawAt.Store(g.now().UnixMilli()) }

// forbidden returns why content is not to be delivered, by its number. Mail that has
// just been committed was judged a moment ago.
func (d *delivery) forbidden(entries []mailbox.Entry, stored bool) map[uint64]*bundle.Verdict {
	state := d.s.g.rules.Load()
	if state == nil || state.Bundle == nil {
		return nil
	}
	var out map[uint64]*bundle.Verdict
	changed := d.s.g.lawAt.Load()
	for i := range entries {
		e := &entries[i]
		if e.Kind != mailbox.Content || !stored && e.Time > changed {
			continue
		}
		if v := d.again(e, state.Bundle); v != nil {
			if out == nil {
				out = make(map[uint64]*bundle.Verdict)
			}
			out[e.Number] = v
		}
	}
	return out
}

// again decides about one message. What has no label was allowed to have none, by the
// bundle of its time; what does not parse was changed in the store, and is for its
// recipient to find.
func (d *delivery) again(e *mailbox.Entry, b *bundle.Bundle) *bundle.Verdict {
	info, err := mls.ParsePrivateMessageInfo(e.Payload)
	if err != nil {
		return nil
	}
	header, err := wire.ReadHeader(info.AuthenticatedData)
	if err != nil || !header.Labelled {
		return nil
	}
	set := d.s.g.Standings()
	if j := &d.second; j.bundle != b || j.set != set || len(j.known) >= maxSecond {
		*j = second{bundle: b, set: set, own: endOf(d.s.device, set), known: make(map[string]*bundle.Verdict)}
	}
	if v, ok := d.second.known[string(header.Label)]; ok {
		return v
	}
	label, err := policy.ParseLabel(header.Label)
	if err != nil {
		return nil
	}
	v := b.Stored(label, &d.second.own, d.s.g.now())
	if len(header.Label) <= maxSecondLabel {
		d.second.known[string(header.Label)] = v
	}
	return v
}

var errKept = errors.New("mail that is to be withheld is still there")

// withhold takes messages out of the mailbox.
func (d *delivery) withhold(why map[uint64]*bundle.Verdict) (int, error) {
	ctx := d.s.conn.Context()
	losses, err := d.s.g.box.Withhold(ctx, d.s.device.ID, slices.Sorted(maps.Keys(why)))
	if err == nil && len(losses) == 0 {
		if !d.kept { // the device may have come to another gateway, which has done it
			d.kept = true
			return 1, nil
		}
		err = errKept
	}
	d.kept = false
	if err != nil {
		d.s.unavailable("mail that its device may not have any more could not be taken out", err)
		return 0, err
	}
	n := 0
	for _, l := range losses {
		n += len(l.Lost)
		d.s.g.recordWithheld(ctx, l, why[l.First])
	}
	return n, nil
}

// recordWithheld puts it into the audit stream, as every loss.
func (g *Gateway) recordWithheld(ctx context.Context, l mailbox.Loss, v *bundle.Verdict) {
	err := g.cfg.Audit(context.WithoutCancel(ctx), eventWithheld, string(v.Reason),
		slog.String("recipient", identity.DeviceID(l.Recipient).String()), slog.String("sender", identity.DeviceID(l.Sender).String()),
		slog.String("group", hexOf(l.Group)), slog.Int("messages", len(l.Lost)), slog.Uint64("first", l.First), slog.Uint64("last", l.Last),
		slog.String("detail", v.Detail))
	if err != nil {
		g.log.Error("the audit stream cannot be written", "event", eventWithheld, "error", err)
	}
}
