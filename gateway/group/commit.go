// SPDX-License-Identifier: Apache-2.0

package group

import (
	"context"
	"encoding/binary"
	"errors"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// Commit ends a group's epoch, if this is the first commit that does. The step,
// the commit for every other member of the old epoch, removed ones too, the
// Welcome for every added device and the new GroupInfo are one submission.
func (r *Registry) Commit(ctx context.Context, sub *mailbox.Submission, req *wire.Commit) (mailbox.Outcome, error) {
	// Held until the commit is on disk: commits of one group come one by one,
	// and the loser is judged against the winner's epoch.
	g := r.hold(req.Group)
	defer g.mu.Unlock()
	if err := r.loadAt(ctx, g, req.Epoch); err != nil {
		return mailbox.Outcome{}, err
	}
	before := g.view.Load()
	if req.Epoch != before.Epoch {
		return mailbox.Outcome{}, &Refusal{Code: wire.StaleEpoch, Reason: "stale_epoch", Epoch: before.Epoch}
	}
	sender := identity.DeviceID(sub.Device)
	if _, ok := before.Member(sender); !ok {
		return mailbox.Outcome{}, refuse(wire.NotMember, "not_member", nil)
	}
	staged, after, err := r.check(g, sub, req)
	if err != nil {
		return mailbox.Outcome{}, err
	}
	added, err := r.checkAdded(ctx, staged, req.Welcome)
	if err != nil {
		return mailbox.Outcome{}, err
	}
	if err := r.checkJoin(before, after, sender, added); err != nil {
		return mailbox.Outcome{}, err
	}

	sub.Step = &mailbox.Step{
		Group: g.id, From: req.Epoch, To: after.Epoch, Records: toRecords(staged.Delta), Info: req.GroupInfo,
		Joined: after.without(before), Left: before.without(after),
	}
	sub.Messages = []mailbox.Message{
		{Kind: mailbox.Commit, Group: g.id, Epoch: req.Epoch, Payload: req.Commit, To: before.Others(sender)},
	}
	if len(added) > 0 {
		sub.Messages = append(sub.Messages,
			mailbox.Message{Kind: mailbox.Welcome, Group: g.id, Epoch: after.Epoch, Payload: req.Welcome, To: added})
	}
	outcome, err := r.cfg.Box.Do(ctx, sub)
	switch {
	case err != nil || outcome.Verdict == mailbox.StaleEpoch || outcome.Verdict == mailbox.UnknownGroup || outcome.Verdict == mailbox.Repeated:
		g.reset() // memory and store may differ: read again
	case outcome.Verdict == mailbox.Done:
		if err := g.public.Apply(staged); err != nil {
			g.reset()
			break
		}
		g.info = req.GroupInfo
		r.show(g, after)
		r.keep(g, len(after.Members))
	}
	return outcome, err
}

// check judges a commit by RFC 9420 and by who sent it. The caller holds g.mu.
func (r *Registry) check(g *group, sub *mailbox.Submission, req *wire.Commit) (*mls.PublicStaged, *View, error) {
	info, err := mls.ParseMessageInfo(req.Commit)
	if err != nil {
		return nil, nil, refuse(wire.Malformed, "malformed_commit", err)
	}
	if info.Wire != mls.WirePublicMessage || info.Content != mls.ContentCommit {
		return nil, nil, refuse(wire.InvalidCommit, "not_a_public_commit", nil)
	}
	staged, err := g.public.Check(req.Commit, sub.Time)
	if err != nil {
		return nil, nil, refuse(wire.InvalidCommit, reasonOf(err), err)
	}
	if err := r.checkCommitter(g.view.Load(), staged, identity.DeviceID(sub.Device)); err != nil {
		return nil, nil, err
	}
	after, err := newView(g.id, staged.Epoch, staged.Members(), r.auth)
	if err != nil {
		return nil, nil, refuse(wire.InvalidCommit, "invalid_members", err)
	}
	if err := checkSuccession(g.view.Load(), after, staged); err != nil {
		return nil, nil, err
	}
	if err := staged.CheckGroupInfo(req.GroupInfo); err != nil {
		return nil, nil, refuse(wire.InvalidCommit, "invalid_group_info", err)
	}
	return staged, after, nil
}

// checkCommitter refuses a commit that somebody else made, and an external one
// that does anything but replace the sender's own old leaf.
func (r *Registry) checkCommitter(before *View, staged *mls.PublicStaged, sender identity.DeviceID) error {
	committer, err := r.auth.device(staged.Committer.Credential)
	if err != nil {
		return refuse(wire.InvalidCommit, "credential_refused", err)
	}
	if committer.ID != sender {
		return refuse(wire.InvalidCommit, "sender_mismatch", nil)
	}
	if staged.External {
		if !mls.IsResync(staged.Change, r.sameDevice) {
			return refuse(wire.NotAllowed, "external_not_resync", nil)
		}
		return nil
	}
	if m, ok := before.Member(sender); !ok || m.Leaf != staged.Committer.Leaf {
		return refuse(wire.InvalidCommit, "sender_mismatch", nil)
	}
	return nil
}

func (r *Registry) sameDevice(old, new mls.Member) bool {
	a, errA := r.auth.device(old.Credential)
	b, errB := r.auth.device(new.Credential)
	return errA == nil && errB == nil && a.ID == b.ID
}

// checkSuccession refuses a commit by which a leaf that stays changes hands: a
// device may renew its certificate in place, and nothing else.
func checkSuccession(before, after *View, staged *mls.PublicStaged) error {
	fresh := make(map[mls.LeafIndex]bool)
	for _, m := range staged.Added {
		fresh[m.Leaf] = true
	}
	if staged.External {
		fresh[staged.Committer.Leaf] = true
	}
	old := make(map[mls.LeafIndex]identity.DeviceID, len(before.Members))
	for _, m := range before.Members {
		old[m.Leaf] = m.Device.ID
	}
	for _, m := range after.Members {
		if !fresh[m.Leaf] && old[m.Leaf] != m.Device.ID {
			return refuse(wire.InvalidCommit, "leaf_changed_hands", nil)
		}
	}
	return nil
}

// checkAdded returns the devices that a commit adds, each of them known here
// and not denied, and checks that a Welcome comes exactly when there are any.
func (r *Registry) checkAdded(ctx context.Context, staged *mls.PublicStaged, welcome []byte) ([]mailbox.Device, error) {
	var added []mailbox.Device
	if !staged.External {
		for _, m := range staged.Added {
			device, err := r.auth.device(m.Credential)
			if err != nil {
				return nil, refuse(wire.InvalidCommit, "credential_refused", err)
			}
			if r.cfg.Denied(device) {
				return nil, &Refusal{Code: wire.RecipientRefused, Reason: "added_device_denied", About: device.ID}
			}
			added = append(added, device.ID)
		}
	}
	if (len(added) > 0) != (len(welcome) > 0) || len(welcome) > 0 && !isWelcome(welcome) {
		return nil, refuse(wire.InvalidCommit, "invalid_welcome", nil)
	}
	known, err := r.cfg.Store.Known(ctx, added)
	if err != nil {
		return nil, err
	}
	for _, d := range added {
		if !known[d] {
			return nil, &Refusal{Code: wire.RecipientRefused, Reason: "added_device_unknown", About: d}
		}
	}
	return added, nil
}

// checkJoin asks whether the sender may add these devices.
func (r *Registry) checkJoin(before, after *View, sender identity.DeviceID, added []mailbox.Device) error {
	if len(added) == 0 {
		return nil
	}
	by, _ := before.Member(sender)
	members := make([]Member, len(added))
	for i, d := range added {
		members[i], _ = after.Member(d)
	}
	if refusal := r.cfg.Join(before, after, by, members); refusal != nil {
		return refusal
	}
	return nil
}

// isWelcome looks at the head of an MLSMessage (RFC 9420, Section 6): version
// mls10, wire format mls_welcome. The rest is for the joiner.
func isWelcome(message []byte) bool {
	return len(message) > 4 && binary.BigEndian.Uint16(message) == 1 && mls.WireFormat(binary.BigEndian.Uint16(message[2:])) == mls.WireWelcome
}

// reasonOf names what is wrong with a commit for the audit stream.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, mls.ErrMalformed):
		return "malformed_commit"
	case errors.Is(err, mls.ErrSignature):
		return "bad_signature"
	case errors.Is(err, mls.ErrCredential):
		return "credential_refused"
	case errors.Is(err, mls.ErrWrongGroup):
		return "wrong_group"
	case errors.Is(err, mls.ErrPastEpoch), errors.Is(err, mls.ErrFutureEpoch):
		return "wrong_epoch"
	case errors.Is(err, mls.ErrLifetime):
		return "key_package_expired"
	}
	return "invalid_commit"
}
