// SPDX-License-Identifier: Apache-2.0

// Package policy says what a label means, who is cleared for it, and why.
//
// A label stands on a message, a clearance on a device, a group or a link, and
// a policy, written as a SPIF, gives both their meaning. Compile the SPIFs
// once, resolve a label once, and decide for every recipient:
//
//	set, err := policy.Compile(documents...)                 // from spif.Parse
//	label, err := policy.ParseLabel(header.Label)            // or set.Import(file, now)
//	resolved, err := set.Resolve(label, policy.New, now)     // is it valid?
//	cleared, err := set.Clearance(device.Clearance)          // what does it hold?
//	if d := policy.Decide(resolved, cleared); !d.Granted {
//		return d.Explain(resolved, cleared)                  // a *Denial with a Reason
//	}
//
// [Set.Judge] does the last three in one go. [Decide] allocates nothing and is
// never cached. A device's clearance is first cut down to what the authorities
// above it may give, by [Effective]. A label of another policy is not compared
// but translated ([Set.Translate]), along equivalences that its own policy
// states, and then validated like any other.
//
// Whatever is unknown denies: a policy, an edition, a name, a number, a type,
// an element in a file. Never decide on a label that did not pass
// [Set.Resolve]: an invalid one can look harmless, such as one whose
// restrictive category is claimed to be informative. Never compare numbers:
// published policies use one number for two communities, so numbers are turned
// into names where a label comes in, and refused where they are ambiguous.
//
// Everything here is pure: no clock, no network, no state.
package policy
