// SPDX-License-Identifier: Apache-2.0

// Package rules is the second level of a decision: rules that officers write,
// in Cedar, and that can only restrict what labels and clearances (package
// policy, the first level) already allow.
//
//	r, err := rules.Compile(text, rules.Schema)      // once, when a bundle is loaded
//	v := r.Decide(&rules.Request{Action: rules.Send, Sender: s, Recipient: d, Label: label, …})
//	if !v.Granted { … v.Reason, v.Rules … }
//
// A rule is a forbid with an @id, such as
//
//	@id("no-secret-to-witnessed")
//	forbid (principal, action == Action::"send", resource)
//	when { context has label && context.label.classification == "SECRET" && resource.tier == "witnessed" };
//
// Cedar by itself denies what nothing permits, and passes over a rule whose
// evaluation fails, which would let through what the rule was to stop. So a
// file with a permit is refused, the one permit is ours, and a rule that fails
// denies. Rules and every request are validated against [Schema], which this
// program fixes: a rule about something that is never there would never act.
//
// Decide is for the setting up of a route, some microseconds each: its caller
// keeps the answer for as long as bundle, clearances and standing stay the same.
//
// Never hand Decide a label that policy.Set.Resolve has not accepted.
package rules
