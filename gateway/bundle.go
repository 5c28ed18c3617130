// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"valise/gateway/rules"
	"valise/wire"
)

// Rules returns the policy bundle in force; nil: there is none.
func (g *Gateway) Rules() *rules.State { return g.rules.Load() }

// SetRules puts another policy bundle in force, for everything from the next
// message on, and tells the devices that are connected.
func (g *Gateway) SetRules(state *rules.State) {
	old := g.rules.Swap(state)
	g.lawChanged()
	if state == nil || state.Bundle == nil || old != nil && old.Bundle == state.Bundle {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		s.bundleChanged()
	}
}

// bundleChanged wakes the delivery stream, which tells the device.
func (s *session) bundleChanged() {
	select {
	case s.changed <- struct{}{}:
	default: // it will be told
	}
	s.tell()
}

// getBundle serves a part of the bundle in force (spec/wire.md, Section 10).
func (s *session) getBundle(r *wire.GetBundle) wire.Answer {
	state := s.g.rules.Load()
	switch {
	case state == nil || state.Bundle == nil:
		return wire.NewResult(r.ID, wire.NotFound)
	case state.Missing:
		return wire.NewResult(r.ID, wire.NoBundle)
	case r.Offset == 0 && r.Hash == state.Bundle.Hash:
		return wire.NewResult(r.ID, wire.OK)
	case r.Offset > 0 && r.Hash != state.Bundle.Hash:
		return wire.NewResult(r.ID, wire.BundleChanged)
	case int(r.Offset) >= len(state.File):
		return wire.NewResult(r.ID, wire.Malformed)
	}
	end := min(int(r.Offset)+wire.MaxBundlePart, len(state.File))
	part := &wire.BundlePart{
		Hash: state.Bundle.Hash, Size: uint32(len(state.File)), Offset: r.Offset, Data: state.File[r.Offset:end],
	}
	part.SetRequestID(r.ID)
	return part
}
