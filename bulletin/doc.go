// SPDX-License-Identifier: Apache-2.0

// Package bulletin is the authority's word on who is in good standing now: a
// signed, numbered list of the devices, people and officers that are not, and
// of clearances that were lowered. Whoever is not on it stands as its
// certificate says.
//
// A bulletin is a JWS by a key that the manifest names, and can be verified from
// a file:
//
//	b, err := bulletin.Verify(raw, m)  // m: a *manifest.Manifest under the pinned root
//
// A [Set] is what one holds against a connection or a message: the highest
// bulletin seen, and the officers' statements that were seen and that this
// bulletin does not know yet. It never changes; each step makes another one, so
// that it can be shared without a lock:
//
//	set := bulletin.NewSet()
//	set, err = set.WithBulletin(b)
//	set, err = set.WithStatement(st, bulletin.Unrecorded) // st: verified, e.g. a suspension
//	if !set.Device(id, address).Good() { … }
//
// Numbers only go up. A statement counts from the moment that it is seen, with
// or without a bulletin; a bulletin undoes it only if it was made from a record
// that holds the statement. Nobody's standing is raised by a statement alone.
// spec/bulletin.md has the format in Section 4 and the rules of a Set in
// Section 5.
//
// Never act on a Bulletin or a Statement that was not verified, and never go
// back to an older Set.
package bulletin
