// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
	"valise/wire"
)

// How a recipient judges a label (spec/message.md, Section 10). The gateway has decided
// before, and is not believed: what the sender's card signed is decided on again, with
// what this device knows of both ends. A message that does not stand is not shown. It is
// acknowledged, reported, and kept as an event that says why.

// Reason codes of labels that are refused, for events and reports. Those of decisions
// begin with "label_" or, where they are about the sender, "label_sender_".
const (
	reasonLabel        = "label_unknown"   // labelled where no policy is in force (yet: see labelwait.go)
	reasonLabelForm    = "label_malformed" // not canonical, or of another policy than the header says
	reasonLabelUnbound = "label_unbound"   // the header names no bundle
	reasonLabelBundle  = "bundle_unknown"  // decided under a bundle that was never in force here (yet)
	reasonLabelAltered = "label_altered"   // another label was delivered than the sender signed
)

// enlighten asks for the bundle that a message was decided under, where it is none that
// this device knows. The header is not authenticated yet: it serves as a hint only. It
// reports whether e.mu was released.
func (e *Engine) enlighten(ctx context.Context, l *link, d *wire.Deliver) (bool, error) {
	h := claimed(d)
	if h == nil || len(h.PolicyHash) == 0 || e.knowsBundle(h.PolicyHash) || e.law.asked == d.Number {
		return false, nil
	}
	e.law.asked = d.Number
	return true, e.refreshLaw(ctx, l)
}

// claimed is the header of a message as the gateway delivers it, nil if there is none.
func claimed(d *wire.Deliver) *wire.Header {
	info, err := mls.ParsePrivateMessageInfo(d.Payload)
	if err != nil {
		return nil
	}
	h, err := wire.ParseHeader(info.AuthenticatedData)
	if err != nil {
		return nil
	}
	return h
}

// judge decides on what the sender signed. The reason says why it is refused.
func (e *Engine) judge(m *arrival, credential mls.Credential) (reason string, err error) {
	h, b := m.header, e.law.bundle
	switch {
	case b == nil && h.Labelled:
		return reasonLabel, errors.New("labelled where no policy is in force")
	case b == nil:
		return "", nil
	case !h.Labelled && time.UnixMilli(int64(m.content.Time)).Before(e.law.since):
		return "", nil // from before the policy
	case h.Labelled && len(h.PolicyHash) == 0:
		return reasonLabelUnbound, errors.New("it does not say under which bundle it was decided")
	case h.Labelled && !e.knowsBundle(h.PolicyHash):
		return reasonLabelBundle, fmt.Errorf("decided under the bundle %x, which was never in force here", h.PolicyHash[:4])
	}
	sender, err := deviceOf(e.cfg.Trust, credential)
	if err != nil {
		return reasonLabelForm, err
	}
	own, err := deviceOf(e.cfg.Trust, mls.X509Credential(e.leaf))
	if err != nil {
		return reasonLabelForm, err
	}
	route := &bundle.Route{
		Action: rules.Send, Sender: e.end(sender), Recipient: e.end(own), Precedence: precedenceName(h.Precedence), Members: m.members,
	}
	at := e.law.moment(m.content, e.now())
	if h.Labelled {
		if route.Label, err = policy.ParseLabel(h.Label); err != nil || !bytes.Equal(h.Policy, []byte(route.Label.Policy)) {
			return reasonLabelForm, errors.New("the label is not in its one form, or of another policy than the header says")
		}
		if !bytes.Equal(h.PolicyHash, b.Hash[:]) {
			// Decided under a bundle that was in force before: the label keeps its edition.
			b, route.Use = e.law.archive, policy.Stored
		}
		m.label = named(route.Label, h.Label)
		if r, err := b.Set.Resolve(route.Label, route.Use, at); err == nil {
			m.label = shown(r, h.Label)
		}
	}
	v := b.Decide(route, at)
	switch {
	case v.Granted:
		return "", nil
	case v.Reason == bundle.ReasonUnlabelled:
		return "label_" + string(v.Reason), errors.New(v.Detail)
	case v.Sender:
		return "label_sender_" + string(v.Reason), fmt.Errorf("%s may not send it: %s", sender.Address, v.Detail)
	}
	return "label_" + string(v.Reason), fmt.Errorf("not for this device: %s", v.Detail)
}

// moment is when a message was written, as far as it can be true: not before the bundle
// in force, and not in the future.
func (w *law) moment(content *wire.Content, now time.Time) time.Time {
	at := time.UnixMilli(int64(content.Time))
	if at.Before(w.since) {
		at = w.since
	}
	if at.After(now) {
		return now
	}
	return at
}

// refusedLabel keeps that a message was refused for its label, once for each message.
func (e *Engine) refusedLabel(c *change, conv *conversation, m *arrival, reason string) error {
	if err := e.progress(c, conv, m.from.Device, m.header.Sequence); err != nil {
		return err
	}
	id := m.content.ID
	seen, err := c.Has(tableSeen, m.from.Device[:], id[:])
	if err != nil || seen {
		return err
	}
	return errors.Join(c.Put(tableSeen, m.from.Device[:], id[:], nil), e.note(c, conv, Event{
		Kind: EventRefused, Time: e.now(), From: m.from.Address.String(), Device: m.from.Device, ID: id, Sequence: m.header.Sequence,
		Reason: reason, Label: m.label,
	}))
}

// remark remembers which label a message bore that could not be opened: when its sender
// sends it again, it shows whether it was the label that somebody had changed.
func (e *Engine) remark(c *change, conv *conversation, d *wire.Deliver) error {
	h := claimed(d)
	if h == nil {
		return nil
	}
	p, err := c.peer(conv.ID, d.Sender)
	if err != nil || len(p.Claimed) >= maxClaimed {
		return err
	}
	if p.Claimed == nil {
		p.Claimed = make(map[uint64][]byte)
	}
	p.Claimed[h.Sequence] = labelDigest(h)
	return c.putPeer(conv.ID, d.Sender, p)
}

// labelDigest is short, and differs for a message without a label.
func labelDigest(h *wire.Header) []byte {
	if !h.Labelled {
		return []byte{0}
	}
	sum := sha256.Sum256(h.Label)
	return sum[:]
}

// altered reports whether a message that now opens was delivered before with another
// label than its sender signed.
func (e *Engine) altered(conv *conversation, m *arrival) (changed bool, err error) {
	err = e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) error {
		p, err := getJSON[peer](tx, tablePeer, conv.ID[:], m.from.Device[:])
		if p != nil {
			was, ok := p.Claimed[m.header.Sequence]
			changed = ok && !bytes.Equal(was, labelDigest(m.header))
		}
		return err
	})
	return changed, stopped(err)
}

// forgetClaim ends what remark began.
func (e *Engine) forgetClaim(c *change, conv *conversation, device identity.DeviceID, n uint64) error {
	p, err := c.peer(conv.ID, device)
	if err != nil || p.Claimed[n] == nil {
		return err
	}
	delete(p.Claimed, n)
	return c.putPeer(conv.ID, device, p)
}

// RefusedText says in words why a message was refused, for the reasons in events of the
// kind EventRefused.
func RefusedText(reason string) string {
	if own, ok := strings.CutPrefix(reason, "label_sender_"); ok {
		return fmt.Sprintf("its sender may not use this label: %s (%s)", reasonText(own), reason)
	}
	text := map[string]string{
		reasonLabel:        "it has a label, and no policy is in force here",
		reasonLabelForm:    "its label is malformed",
		"label_unlabelled": "it has no label, and without one nothing is carried",
		reasonLabelUnbound: "its label names no policy bundle",
		reasonLabelBundle:  "its label was decided under a policy bundle that was never in force here",
		reasonContent:      "its content is malformed",
		reasonHeader:       "its header is malformed",
		reasonCritical:     "it needs something that this version does not know",
	}[reason]
	if text == "" {
		own, ok := strings.CutPrefix(reason, "label_")
		if !ok {
			return reason
		}
		text = "its label is not for this device: " + reasonText(own)
	}
	return fmt.Sprintf("%s (%s)", text, reason)
}

// BundleText says in words what is wrong with a policy bundle, for the reasons in events
// of the kind EventPolicy.
func BundleText(reason string) string {
	text := map[string]string{
		reasonBundleMissing:    "the gateway does not have the one in force",
		reasonBundleSignatures: "it is not signed by two officers, on record",
		reasonBundleMalformed:  "it is malformed, or another one than is in force",
		reasonBundleRollback:   "it is not newer than the one before",
		reasonBundleInvalid:    "it does not pass its own tests",
	}[reason]
	if text == "" {
		text = "it is refused"
	}
	return text
}
