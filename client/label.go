// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"valise/identity"
	"valise/mls"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
	"valise/wire"
)

// Unlabelled, as a label, says that a message has none, where there is a default.
const Unlabelled = "unlabelled"

// A Label is what an event says about a message's label.
type Label struct {
	Marking        string     `json:"marking"`          // as people read it
	Phrase         string     `json:"phrase,omitempty"` // as send --label takes it
	Policy         string     `json:"policy"`           // its object identifier
	Edition        uint32     `json:"edition"`
	Classification string     `json:"classification"`
	Mark           string     `json:"mark,omitempty"`
	Categories     []Category `json:"categories,omitempty"`
	Color          string     `json:"color,omitempty"`  // of the classification, as the policy gives it
	Octets         []byte     `json:"octets,omitempty"` // in the one form that was signed (spec/label.md)
}

// A Category is one value of a Label.
type Category struct {
	Set  string `json:"set"`
	Tag  string `json:"tag"`
	Name string `json:"name"`
}

// shown is a valid label for people.
func shown(r *policy.Resolved, octets []byte) *Label {
	l := r.Label()
	out := named(l, octets)
	out.Marking, out.Phrase, out.Color = r.Marking(""), r.Phrase(), r.Color()
	return out
}

// named is a label as it stands there, without a policy that says how to show it.
func named(l *policy.Label, octets []byte) *Label {
	out := &Label{Policy: l.Policy.String(), Edition: l.Edition, Classification: l.Classification, Mark: l.Mark, Octets: octets}
	for _, c := range l.Categories {
		out.Categories = append(out.Categories, Category{c.Set.String(), c.Tag, c.Name})
	}
	return out
}

// The names of precedences, in ascending order.
var precedences = []string{"routine", "priority", "immediate", "flash"}

func precedenceOf(name string) (wire.Precedence, error) {
	if name == "" {
		return wire.Routine, nil
	}
	for i, p := range precedences {
		if strings.EqualFold(name, p) {
			return wire.Precedence(i), nil
		}
	}
	return 0, &hintError{fmt.Sprintf("precedence %.40q is not known", name), "it takes: " + strings.Join(precedences, " | ")}
}

func precedenceName(p wire.Precedence) string {
	if int(p) < len(precedences) {
		return precedences[p]
	}
	return fmt.Sprint(uint8(p))
}

// A LabelRefused says why a message with a label is not sent, and about whom.
type LabelRefused struct {
	Marking string
	Reason  string // a reason code, as in the gateway's audit stream
	Detail  string
	Sender  bool   // it is about this device; otherwise about Address
	Address string // of the recipient
	Device  identity.DeviceID
}

func (r *LabelRefused) Error() string {
	about := "you"
	if !r.Sender {
		about = r.Address
	}
	marking := "an unlabelled message"
	if r.Marking != "" {
		marking = r.Marking
	}
	return fmt.Sprintf("%s is not for %s: %s (%s)", marking, about, reasonText(r.Reason), r.why())
}

func (r *LabelRefused) why() string {
	detail := strings.TrimPrefix(strings.TrimPrefix(r.Detail, r.Reason), ": ")
	if detail == "" {
		return r.Reason
	}
	return r.Reason + ": " + detail
}

// Hint says what to do.
func (r *LabelRefused) Hint() string {
	switch bundle.Reason(r.Reason) {
	case bundle.ReasonUnlabelled:
		return "give it a label: --label; valise labels lists those that you can use"
	case bundle.ReasonTier:
		return "choose a label that such devices may have (valise labels), or have the device enrolled with keys in hardware"
	case bundle.ReasonDomain:
		return "choose a label that the domain carries: valise labels lists them"
	case bundle.Reason(rules.ReasonRule), bundle.Reason(rules.ReasonRuleError), bundle.Reason(rules.ReasonRequest):
		return "a rule of the security officers forbids it: choose another label (valise labels), or ask them"
	}
	switch policy.Reason(r.Reason) {
	case policy.ReasonClassification, policy.ReasonRestrictive, policy.ReasonPermissive, policy.ReasonNoClearance, policy.ReasonUnknownPolicy, policy.ReasonOtherPolicy:
		if r.Sender {
			return "choose a label within your clearance (valise labels), or ask your security officer"
		}
		return fmt.Sprintf("choose a label that is open to everybody there (valise labels), or write to others without %s", r.Address)
	}
	return "valise labels lists labels that are valid, and --all says why others are not"
}

// ErrorCode is the reason, for programs.
func (r *LabelRefused) ErrorCode() string { return r.Reason }

// reasonText says in words why a label is refused.
func reasonText(reason string) string {
	text := map[string]string{
		string(bundle.ReasonUnlabelled):       "messages without a label are not carried",
		string(bundle.ReasonDomain):           "the domain does not carry it",
		string(bundle.ReasonTier):             "it needs devices whose keys are better attested",
		string(rules.ReasonRule):              "a rule forbids it",
		string(rules.ReasonRuleError):         "a rule could not be evaluated, which forbids it",
		string(rules.ReasonRequest):           "the rules have no words for it",
		string(policy.ReasonClassification):   "not cleared for this classification",
		string(policy.ReasonRestrictive):      "not cleared for one of its categories",
		string(policy.ReasonPermissive):       "not among those it may be released to",
		string(policy.ReasonNoClearance):      "without a clearance",
		string(policy.ReasonUnknownPolicy):    "cleared under another policy",
		string(policy.ReasonOtherPolicy):      "cleared under another policy",
		string(policy.ReasonOldEdition):       "the label is of an edition that is no longer in force",
		string(policy.ReasonUnknownEdition):   "the label is of an edition that is not known",
		string(policy.ReasonRequired):         "the label lacks a value that must stand there",
		string(policy.ReasonExcluded):         "the label has values that must not stand together",
		string(policy.ReasonObsolete):         "the label has a value that new messages no longer bear",
		string(policy.ReasonNoClassification): "the label has no classification",
	}[reason]
	if text == "" {
		text = "the label is not valid"
	}
	return text
}

// A mark is what a message's header says beside its sequence number, as it is queued.
type mark struct {
	Label      []byte          `json:"label,omitempty"` // canonical; empty: unlabelled
	Precedence wire.Precedence `json:"precedence,omitempty"`
}

// errNoBundle: a label was asked for where there is no policy.
var errNoBundle error = &hintError{
	"there is no policy bundle in force here, so messages bear no labels",
	"leave --label away; a security officer can put a bundle into force",
}

// markOf reads the label and precedence of a draft. Without a label it is the default of
// the own domain. e.mu is held.
func (e *Engine) markOf(phrase, precedence string) (m mark, err error) {
	if m.Precedence, err = precedenceOf(precedence); err != nil {
		return m, err
	}
	b := e.law.bundle
	switch {
	case strings.EqualFold(strings.TrimSpace(phrase), Unlabelled):
		return m, nil
	case b == nil && phrase == "":
		return m, nil
	case b == nil:
		return m, errNoBundle
	}
	var r *policy.Resolved
	if phrase == "" {
		if r = b.Default(e.cfg.Address.Domain(), e.now()); r == nil && b.Unlabelled() {
			return m, nil
		} else if r == nil {
			return m, &LabelRefused{Reason: string(bundle.ReasonUnlabelled), Sender: true}
		}
	} else if r, err = e.resolvePhrase(b, phrase); err != nil {
		return m, err
	}
	m.Label, err = r.Label().Marshal()
	return m, err
}

// resolvePhrase reads a label under the policies of a bundle: that of this device's
// clearance first, then the others, of which one alone may understand it.
func (e *Engine) resolvePhrase(b *bundle.Bundle, phrase string) (*policy.Resolved, error) {
	now := e.now()
	own, first := e.ownPolicy(), error(nil)
	var found []*policy.Label
	for _, id := range policiesFirst(b, own) {
		l, err := b.Set.Phrase(id, phrase, now)
		if err == nil {
			found = append(found, l)
			if id == own {
				break
			}
		} else if first == nil {
			first = err
		}
	}
	switch {
	case len(found) == 0:
		return nil, explained(first)
	case len(found) > 1:
		return nil, &hintError{fmt.Sprintf("label: %.80q is a label of more than one policy", phrase), "begin it with the name of the policy: valise labels shows them"}
	}
	r, err := b.Set.Resolve(found[0], policy.New, now)
	if err != nil {
		return nil, &LabelRefused{Marking: phrase, Reason: string(policy.ReasonOf(err)), Detail: err.Error(), Sender: true}
	}
	return r, nil
}

func explained(err error) error {
	if err == nil {
		return errors.New("label: the bundle in force has no policy")
	}
	return err
}

// ownPolicy is the policy that this device is cleared under, "" if it has no clearance.
func (e *Engine) ownPolicy() policy.OID {
	d, err := deviceOf(e.cfg.Trust, mls.X509Credential(e.leaf))
	if err != nil || d.Clearance == nil {
		return ""
	}
	return policy.OIDOf(d.Clearance.PolicyID)
}

// serviceMark is what messages between devices bear, which nobody reads: nothing where
// that is allowed, otherwise the default, or the lowest classification of the own policy.
func (e *Engine) serviceMark() mark {
	b := e.law.bundle
	if b == nil || b.Unlabelled() {
		return mark{}
	}
	r := b.Default(e.cfg.Address.Domain(), e.now())
	if own := e.ownPolicy(); r == nil && own != "" {
		if class, err := b.Set.Lowest(own, e.now()); err == nil {
			r, _ = b.Set.Resolve(&policy.Label{Policy: own, Classification: class}, policy.New, e.now())
		}
	}
	if r == nil {
		return mark{}
	}
	octets, err := r.Label().Marshal()
	if err != nil {
		return mark{}
	}
	return mark{Label: octets}
}

// urgency is the name of a precedence above the usual one.
func urgency(p wire.Precedence) string {
	if p == wire.Routine {
		return ""
	}
	return precedenceName(p)
}

// labelOf shows the label of a message of this device's own, nil if it has none.
func (e *Engine) labelOf(m mark) *Label {
	l, err := policy.ParseLabel(m.Label)
	if err != nil {
		return nil
	}
	if b := e.law.archive; b != nil {
		if r, err := b.Set.Resolve(l, policy.Stored, e.now()); err == nil {
			return shown(r, m.Label)
		}
	}
	return named(l, m.Label)
}

// renewed gives a label that is sent again the edition in force, where that still has
// all of its values: no gateway takes an old edition for a message that is new to it.
func (e *Engine) renewed(m mark) mark {
	l, err := policy.ParseLabel(m.Label)
	if err != nil || e.law.bundle == nil {
		return m
	}
	l.Edition = 0
	r, err := e.law.bundle.Set.Resolve(l, policy.New, e.now())
	if err != nil {
		return m
	}
	octets, err := r.Label().Marshal()
	if err != nil {
		return m
	}
	return mark{Label: octets, Precedence: m.Precedence}
}

// markNow is what an intent's message bears when it is sealed.
func (e *Engine) markNow(in *intent) mark {
	switch {
	case in.Service:
		return e.serviceMark()
	case in.Resend:
		return e.renewed(in.Mark)
	}
	return in.Mark
}

// unfit ends an intent whose label does not stand. Its sequence number, if it had one
// already, is free again: such numbers have no gaps.
func (e *Engine) unfit(in *intent, conv *conversation, why error) error {
	return stopped(e.update(func(c *change) error { return e.withdraw(c, in, conv, why) }))
}

// withdraw gives a message up together with its sequence number.
func (e *Engine) withdraw(c *change, in *intent, conv *conversation, why error) error {
	next := conv.edit()
	if !in.Resend && in.Sequence > 0 && in.Sequence == conv.Sequence {
		next.Sequence--
	}
	return errors.Join(c.put(next), e.giveUp(c, in, next, why))
}

// header is what the card will sign beside the content.
func (e *Engine) header(m mark, sequence uint64) (*wire.Header, error) {
	h := &wire.Header{Sequence: sequence, Precedence: m.Precedence}
	if b := e.law.bundle; b != nil {
		h.PolicyHash = b.Hash[:]
	}
	if len(m.Label) == 0 {
		return h, nil
	}
	l, err := policy.ParseLabel(m.Label)
	if err != nil {
		return nil, err
	}
	h.Labelled, h.Label, h.Policy = true, m.Label, []byte(l.Policy)
	return h, nil
}

// decide asks, as the gateway will, whether a message with this label may go to all
// members of a group. nil: it may.
func (e *Engine) decide(m mark, list []mls.Member) error {
	b := e.law.bundle
	if b == nil {
		if len(m.Label) > 0 {
			return errNoBundle
		}
		return nil
	}
	var ends []bundle.End
	for _, each := range list {
		d, err := deviceOf(e.cfg.Trust, each.Credential)
		if err != nil {
			return err
		}
		ends = append(ends, e.end(d))
	}
	own, err := deviceOf(e.cfg.Trust, mls.X509Credential(e.leaf))
	if err != nil {
		return err
	}
	return decideFor(b, e.end(own), m, ends, len(list), e.now())
}

// decideFor decides about every end but the sender's own.
func decideFor(b *bundle.Bundle, own bundle.End, m mark, ends []bundle.End, members int, now time.Time) error {
	route := &bundle.Route{Action: rules.Send, Sender: own, Use: policy.New, Precedence: precedenceName(m.Precedence), Members: members}
	marking := ""
	if len(m.Label) > 0 {
		var err error
		if route.Label, err = policy.ParseLabel(m.Label); err != nil {
			return err
		}
		marking = markingOf(b.Set, route.Label, policy.New, now)
	}
	for _, end := range ends {
		if end.ID == own.ID {
			continue
		}
		route.Recipient = end
		if v := b.Decide(route, now); !v.Granted {
			return &LabelRefused{
				Marking: marking, Reason: string(v.Reason), Detail: v.Detail, Sender: v.Sender, Address: end.Address.String(), Device: end.ID,
			}
		}
	}
	return nil
}

// markingOf is a label as people read it; one that is not valid goes by its names.
func markingOf(set *policy.Set, l *policy.Label, use policy.Use, at time.Time) string {
	if r, err := set.Resolve(l, use, at); err == nil {
		return r.Marking("")
	}
	return l.Classification
}
