// SPDX-License-Identifier: Apache-2.0

// Package rules holds the policy bundle in force at a gateway: the one that two
// officers signed, that stands in the authority's record, and that the newest
// bulletin names by its hash.
//
//	r, err := rules.Open(rules.Config{Path: "bundle.signed", Verify: feed.VerifyBundle, …})
//	r.Apply(gateway.SetBundle)      // now, and whenever another one is in force
//	err = r.Offer(ctx, data)        // a file that an operator laid down; ErrWaits: its time will come
//	r.Follow(ctx, standings)        // whenever the authority has said something
//
// A file may be offered before the bulletin names it: it waits, and is put into
// force with the bulletin that does, at once and whole. One that is malformed,
// whose tests fail, that too few officers signed or that is older than the one in
// force is refused, with a reason in the audit stream, and the old one stays.
//
// When the bulletin names a bundle that is not here, the state says Missing, and
// the gateway carries no content until somebody brings it: what the officers
// changed is not known, and the old bundle might allow it. What is in force lies
// at Path and outlives a restart; it is verified again when it is read.
//
// Never put a bundle into force that did not come through here: what compiles
// alone has been signed by nobody.
package rules
