// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"

	"valise/identity"
	"valise/policy"
)

// An Action is what is asked for.
type Action string

// The actions of the schema.
const (
	Send Action = "send"
	Join Action = "join"
)

// A Reason says, as one word for the audit stream, why a route is refused.
type Reason string

// Why a route is refused.
const (
	ReasonRule      Reason = "rule"       // a rule forbids it; Verdict.Rules names all that do
	ReasonRuleError Reason = "rule_error" // a rule could not be evaluated, which denies
	ReasonRequest   Reason = "rule_request"
)

// A Device is one end of a route.
type Device struct {
	ID        identity.DeviceID
	Address   identity.Address
	Tier      identity.Tier
	Clearance *policy.Clearance // effective; nil: none
}

// A Request asks for one route.
type Request struct {
	Action     Action
	Sender     Device // who sends, or who adds
	Recipient  Device // who receives, or who is added
	Label      *policy.Label
	Precedence string // Send only
	Members    int
}

// A Verdict is the answer.
type Verdict struct {
	Granted bool
	Reason  Reason
	Rules   []string // sorted: those that forbid, or could not be evaluated
}

// Decide says whether the rules leave a route open.
func (r *Rules) Decide(q *Request) Verdict {
	entities, request := q.cedar()
	if r.validator.Request(request) != nil || r.validator.Entities(entities) != nil {
		return Verdict{Reason: ReasonRequest}
	}
	decision, diagnostic := cedar.Authorize(r.set, entities, request)
	if len(diagnostic.Errors) > 0 {
		v := Verdict{Reason: ReasonRuleError}
		for _, e := range diagnostic.Errors {
			v.Rules = append(v.Rules, string(e.PolicyID))
		}
		slices.Sort(v.Rules)
		return v
	}
	if decision == cedar.Allow {
		return Verdict{Granted: true}
	}
	v := Verdict{Reason: ReasonRule}
	for _, reason := range diagnostic.Reasons {
		v.Rules = append(v.Rules, string(reason.PolicyID))
	}
	slices.Sort(v.Rules)
	return v
}

// cedar writes a request in the words of the schema. Sender and recipient are
// two entities even if they are one device: a device may send to itself.
func (q *Request) cedar() (cedar.EntityMap, cedar.Request) {
	from := cedar.NewEntityUID("Device", cedar.String("from:"+q.Sender.ID.String()))
	to := cedar.NewEntityUID("Device", cedar.String("to:"+q.Recipient.ID.String()))
	entities := cedar.EntityMap{
		from: {UID: from, Attributes: q.Sender.record()},
		to:   {UID: to, Attributes: q.Recipient.record()},
	}
	context := cedar.RecordMap{"members": cedar.Long(q.Members)}
	if q.Action == Send {
		context["precedence"] = cedar.String(q.Precedence)
	}
	if q.Label != nil {
		context["label"] = cedar.NewRecord(cedar.RecordMap{
			"policy": cedar.String(q.Label.Policy.String()), "classification": cedar.String(q.Label.Classification),
			"mark": cedar.String(q.Label.Mark), "categories": categorySet(q.Label.Categories),
		})
	}
	return entities, cedar.Request{
		Principal: from, Action: cedar.NewEntityUID("Action", cedar.String(q.Action)), Resource: to,
		Context: cedar.NewRecord(context),
	}
}

func (d *Device) record() cedar.Record {
	m := cedar.RecordMap{
		"address": cedar.String(d.Address.String()), "domain": cedar.String(d.Address.Domain()), "tier": cedar.String(d.Tier),
	}
	if d.Clearance != nil {
		classes, categories := d.Clearance.Names()
		names := make([]cedar.Value, len(classes))
		for i, c := range classes {
			names[i] = cedar.String(c)
		}
		m["clearance"] = cedar.NewRecord(cedar.RecordMap{
			"policy": cedar.String(d.Clearance.Policy().String()), "classes": cedar.NewSet(names...), "categories": categorySet(categories),
		})
	}
	return cedar.NewRecord(m)
}

func categorySet(list []policy.Category) cedar.Set {
	names := make([]cedar.Value, len(list))
	for i, c := range list {
		names[i] = cedar.String(CategoryName(c))
	}
	return cedar.NewSet(names...)
}

// CategoryName is how rules name a category: "SET/TAG/NAME". A "/" or "%" within
// tag or name is written %2F or %25, so that no two categories share a name.
func CategoryName(c policy.Category) string {
	return c.Set.String() + "/" + escape.Replace(c.Tag) + "/" + escape.Replace(c.Name)
}

var escape = strings.NewReplacer("%", "%25", "/", "%2F")
