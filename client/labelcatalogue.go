// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"slices"

	"valise/identity"
	"valise/mls"
	"valise/policy"
	"valise/policy/bundle"
)

// An Offer is one label of a catalogue.
type Offer struct {
	Label   Label  `json:"label"`
	Usable  bool   `json:"usable"`
	Default bool   `json:"default,omitempty"` // what send takes without --label
	Reason  string `json:"reason,omitempty"`  // a reason code: why it is not usable
	Text    string `json:"text,omitempty"`    // the same in words
	About   string `json:"about,omitempty"`   // whose clearance or tier it is about
}

// A Catalogue lists labels, those of this device's own policy first.
type Catalogue struct {
	Version    uint32  `json:"version"` // of the policy bundle; 0: none is in force
	Unlabelled bool    `json:"unlabelled"`
	List       []Offer `json:"list"`
}

// An Audience is who is to read a message: a conversation, or people who may have none
// with this device yet. Nobody named: what this device may use at all.
type Audience struct {
	Conversation ConversationID
	People       []identity.Address
}

// Labels lists the labels of the bundle in force and which of them the audience may
// have: its members' clearances and tiers, the domain's bounds and the rules decide, as
// they will at the gateway. Without all it leaves out those that are not usable.
func (e *Engine) Labels(ctx context.Context, to Audience, all bool) (*Catalogue, error) {
	devices, err := e.audience(ctx, to)
	if err != nil {
		return nil, err
	}
	own, err := deviceOf(e.cfg.Trust, mls.X509Credential(e.chain()))
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	b, now, first := e.law.bundle, e.now(), e.ownPolicy()
	from := e.end(own)
	var ends []bundle.End
	for _, d := range devices {
		ends = append(ends, e.end(d))
	}
	e.mu.Unlock()
	if b == nil {
		return &Catalogue{Unlabelled: true, List: []Offer{}}, nil
	}
	if len(ends) == 0 {
		ends = []bundle.End{from}
		ends[0].ID = identity.DeviceID{} // somebody like this device
	}
	out := &Catalogue{Version: b.Version, Unlabelled: b.Unlabelled(), List: []Offer{}}
	usual := b.Default(e.cfg.Address.Domain(), now)
	for _, id := range policiesFirst(b, first) {
		for _, r := range b.Set.Catalogue(id, now) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			octets, err := r.Label().Marshal()
			if err != nil {
				return nil, err
			}
			o := Offer{Label: *shown(r, octets), Usable: true, Default: usual != nil && usual.Label().Equal(r.Label())}
			if err := decideFor(b, from, mark{Label: octets}, ends, len(ends)+1, now); err != nil {
				o.refuse(err)
			}
			if o.Usable || all {
				out.List = append(out.List, o)
			}
		}
	}
	return out, nil
}

func (o *Offer) refuse(err error) {
	o.Usable = false
	refused, ok := err.(*LabelRefused)
	if !ok {
		o.Reason, o.Text = "unavailable", err.Error()
		return
	}
	o.Reason, o.Text, o.About = refused.Reason, reasonText(refused.Reason), refused.Address
	if refused.Sender {
		o.About = ""
	}
}

// audience lists the devices that would read a message.
func (e *Engine) audience(ctx context.Context, to Audience) ([]*identity.Device, error) {
	if to.Conversation == (ConversationID{}) {
		return e.devicesOf(ctx, to.People)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	conv := e.conversations[to.Conversation]
	if conv == nil {
		return nil, errNoConversation
	}
	g, err := e.group(conv.Group)
	if err != nil {
		return nil, err
	}
	var out []*identity.Device
	for _, m := range g.Members() {
		d, err := deviceOf(e.cfg.Trust, m.Credential)
		if err != nil {
			return nil, err
		}
		if d.ID != e.self {
			out = append(out, d)
		}
	}
	return out, nil
}

// devicesOf asks the directory for all devices of people; every certificate is checked
// here.
func (e *Engine) devicesOf(ctx context.Context, people []identity.Address) ([]*identity.Device, error) {
	var out []*identity.Device
	for _, who := range people {
		chains, err := e.directory(ctx, who.String())
		if err != nil {
			return nil, err
		}
		found := false
		for _, chain := range chains {
			d, err := deviceOf(e.cfg.Trust, mls.X509Credential(chain))
			if err != nil || d.Address != who || d.ID == e.self {
				continue
			}
			out, found = append(out, d), true
		}
		if !found && who != e.cfg.Address {
			return nil, &NoDevice{who.String()}
		}
	}
	return out, nil
}

// Preview is the label that a draft would bear, nil for none, or why it may not be sent.
func (e *Engine) Preview(_ context.Context, d Draft) (*Label, error) {
	m, err := e.fitting(d)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.labelOf(m), nil
}

// policiesFirst lists the policies of a bundle, one of them first.
func policiesFirst(b *bundle.Bundle, first policy.OID) []policy.OID {
	list := b.Set.Policies()
	if i := slices.Index(list, first); i > 0 {
		list = slices.Insert(slices.Delete(list, i, i+1), 0, first)
	}
	return list
}
