// SPDX-License-Identifier: Apache-2.0

// Package group follows every group that the gateway relays for, from outside:
// its public tree, its members' certificates, its epoch. It decides which
// commit ends an epoch; the first one does, and everybody learns the same.
//
// A [Registry] holds the groups. [Registry.View] is what admission looks at: an
// immutable picture of one epoch's members. [Registry.Create] and
// [Registry.Commit] check a request against RFC 9420 and against the rules of
// the house, and put the step, its fan-out and the Welcome on disk as one
// submission:
//
//   - a commit is a PublicMessage, made by the very device that sends it;
//   - every leaf that enters holds a certificate that an authority issued, and
//     a device that this gateway knows;
//   - an external commit only ever replaces the joiner's own old leaf;
//   - the GroupInfo for the next resync is that of the new epoch.
//
// The gateway learns members, certificates and times from this, and no secret.
//
// Never treat a View as current: whoever acts on it names its epoch to the
// store, which compares in the same transaction.
package group
