// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"slices"

	"valise/gateway/group"
	"valise/policy"
	"valise/policy/bundle"
	"valise/wire"
)

// admitLabel decides about a message's label, or its having none, by the policy
// bundle in force: the label is valid, and sender and every recipient are cleared for
// it; table and rules leave the route open. What depends on the members alone is
// decided when a route is set up; label against clearance, at every message. class is
// the label's classification, "" without a label.
func admitLabel(s *snapshot, h *wire.Header, sender group.Member) (class string, r *refusal) {
	state := s.rules
	switch {
	case state == nil && h.Labelled:
		return "", &refusal{code: wire.LabelRefused, reason: "no_policy_for_label"}
	case state == nil:
		return "", nil
	case state.Missing || state.Bundle == nil:
		return "", &refusal{code: wire.NoBundle, reason: "bundle_not_in_force"}
	case h.Labelled && len(h.PolicyHash) == 0, len(h.PolicyHash) > 0 && string(h.PolicyHash) != string(state.Bundle.Hash[:]):
		return "", &refusal{code: wire.BundleChanged, reason: "other_bundle"}
	}
	path, r := s.path(h, sender)
	if r != nil {
		return "", r
	}
	if label := path.Label(); label != nil && !label.Of(h.Policy) {
		return "", &refusal{code: wire.LabelRefused, reason: "policy_mismatch"}
	}
	if r := admitAge(s, path.Rank, path.Ranks); r != nil {
		return "", r
	}
	if path.Stale > 0 && s.age >= path.Stale {
		return "", &refusal{code: wire.StandingsStale, reason: "stale_for_label", label: describe(path.Label())}
	}
	if refused := path.Decide(s.now); refused != nil {
		return "", refusedRoute(path, refused)
	}
	if label := path.Label(); label != nil {
		class = label.Classification()
	}
	return class, nil
}

// path returns the decided route of a message, and sets it up where it is new: that
// counts as requests of its own, for it takes the time of many messages.
func (s *snapshot) path(h *wire.Header, sender group.Member) (*bundle.Path, *refusal) {
	if leaf := sender.Device.Leaf; leaf == s.device.Leaf {
		if path := s.circle.routes.find(s.device.ID, h.Precedence, h.Label); path != nil && path.Holds(s.now) {
			return path, nil
		}
	}
	key, known := s.circle.keyOf(s.device, sender, h)
	if path := known.get(key); path != nil && path.Holds(s.now) {
		return path, nil
	}
	var label *policy.Label
	if h.Labelled {
		var err error
		if label, err = policy.ParseLabel(h.Label); err != nil {
			return nil, &refusal{code: wire.LabelRefused, reason: "malformed_label"}
		}
	}
	if !s.allowance.ask(s.now, s.circle.known.Cost()) {
		return nil, &refusal{code: wire.RateLimited, reason: "rate_limited"}
	}
	var own *bundle.End
	if key.own != nil {
		end := endOf(s.device, s.set)
		own = &end
	}
	at := slices.IndexFunc(s.circle.known.Ends(), func(e bundle.End) bool { return e.ID == s.device.ID })
	path := s.circle.known.Path(at, own, label, h.Precedence.String(), s.now)
	known.put(key, path)
	return path, nil
}

// refusedRoute says who may do what about it, and everything to the audit stream.
func refusedRoute(path *bundle.Path, v *bundle.Refusal) *refusal {
	r := &refusal{code: wire.LabelRefused, reason: string(v.Reason), detail: v.Detail, label: describe(path.Label())}
	end := &path.Circle().Ends()[v.End]
	switch {
	case v.Reason == bundle.ReasonUnlabelled:
		r.code = wire.LabelRequired
	case !v.Sender:
		r.code, r.about = wire.NotCleared, end.ID
	}
	r.whose = end.Address.String()
	return r
}

// describe names a label for the audit stream.
func describe(l *policy.Resolved) string {
	if l == nil {
		return ""
	}
	return l.Marking("")
}

// admitJoin decides whether a device may add others to a conversation.
func (g *Gateway) admitJoin(before, after *group.View, by group.Member, added []group.Member) *group.Refusal {
	state := g.rules.Load()
	switch {
	case state == nil || len(added) == 0:
		return nil
	case state.Missing || state.Bundle == nil:
		return &group.Refusal{Code: wire.NoBundle, Reason: "bundle_not_in_force"}
	}
	set := g.Standings()
	c := g.circles.of(before, state, set)
	from := slices.IndexFunc(c.known.Ends(), func(e bundle.End) bool { return e.ID == by.Device.ID })
	for _, m := range added {
		end := endOf(m.Device, set)
		v := c.known.Join(from, &end, len(after.Members))
		if v == nil {
			continue
		}
		r := &group.Refusal{Code: wire.NotCleared, Reason: string(v.Reason), About: end.ID, Err: errors.New(v.Detail)}
		if v.Reason == bundle.ReasonCeiling {
			r.Code = wire.CeilingLowered
		}
		return r
	}
	return nil
}
