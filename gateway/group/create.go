// SPDX-License-Identifier: Apache-2.0

package group

import (
	"context"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// Create registers a group that the sending device has founded: one member, the
// device itself, at epoch 0. sub brings the submission's head and receives its
// effects. The error is a *Refusal where the request is at fault.
func (r *Registry) Create(ctx context.Context, sub *mailbox.Submission, req *wire.CreateGroup) (mailbox.Outcome, error) {
	if len(req.Tree) > maxFounding {
		return mailbox.Outcome{}, refuse(wire.InvalidCommit, "founder_not_alone", nil)
	}
	public, err := mls.NewPublicGroup(r.auth, req.GroupInfo, req.Tree, sub.Time)
	if err != nil {
		return mailbox.Outcome{}, refuse(wire.InvalidCommit, "invalid_group", err)
	}
	id := public.ID()
	if len(id) == 0 || len(id) > 255 || public.Epoch() != 0 {
		return mailbox.Outcome{}, refuse(wire.InvalidCommit, "invalid_group", nil)
	}
	v, err := newView(id, 0, public.Members(), r.auth)
	if err != nil {
		return mailbox.Outcome{}, refuse(wire.InvalidCommit, "invalid_group", err)
	}
	if len(v.Members) != 1 {
		return mailbox.Outcome{}, refuse(wire.InvalidCommit, "founder_not_alone", nil)
	}
	if v.Members[0].Device.ID != identity.DeviceID(sub.Device) {
		return mailbox.Outcome{}, refuse(wire.InvalidCommit, "not_the_founder", nil)
	}
	sub.Step = &mailbox.Step{
		Group: id, Create: true, To: 0, Records: toRecords(public.State()), Info: req.GroupInfo, Joined: []mailbox.Device{sub.Device},
	}
	outcome, err := r.cfg.Box.Do(ctx, sub)
	if err == nil && outcome.Verdict == mailbox.Done {
		g := r.hold(id)
		defer g.mu.Unlock()
		if g.public == nil {
			g.public, g.info = public, req.GroupInfo
			r.show(g, v)
			r.keep(g, len(v.Members))
		}
	}
	return outcome, err
}
