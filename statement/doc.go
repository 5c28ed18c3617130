// SPDX-License-Identifier: Apache-2.0

// Package statement holds what officers of an authority sign with their cards:
// approvals, refusals, suspensions, changes of roster and rules. Each is a
// compact JWS (RFC 7515, Section 7.1) in one canonical spelling, with the
// officer's certificates inside, so that it can be verified from its bytes
// alone by whoever pins the authority's root: the authority at the moment it
// issues, a gateway that obeys a suspension, an auditor years later.
// spec/statement.md is the format.
//
// An officer's side shows the words, asks, and signs:
//
//	body := &statement.Suspension{Target: target, Change: statement.NewID(), Reason: "card lost"}
//	for _, line := range body.Words() { … }
//	raw, err := statement.Sign(ctx, key9c, chain, head, body)
//
// Everybody else begins with [Verify]; the outcome's Signer says who it was.
// Two officers agree on something if and only if [BodyDigest] of what they
// signed is equal; [Needs] says how many it takes, [May] who may.
//
// Never act on the outcome of [Parse]: it checks spelling, and no signature.
// Verify judges a chain as of a time and knows no standing: whether the
// officer had been suspended by then, whether a statement was used before, and
// how many were needed, is for package record to say. A [Session] opens the
// desk and is never a decision.
package statement
