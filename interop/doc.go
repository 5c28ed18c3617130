// SPDX-License-Identifier: Apache-2.0

// Package interop holds the tests in which package mls shares groups with
// ts-mls, another people's implementation of RFC 9420: both found groups, add,
// update, remove, join from outside, commit each other's proposals and read
// each other's content, on suites 1, 2, 7 and the hybrid default, and after
// each step all members compare their epoch's secrets. Messages that were
// altered on their way are refused on both sides.
//
//	go test ./interop
//
// There is nothing to call. The other side is the Node project in node/, whose
// packages are pinned by its lock file and installed once by testenv.Node. The
// hybrid suite reaches ts-mls through the crypto provider in node/hybrid.mjs.
//
// # What ts-mls 1.6.4 does otherwise
//
// Its own ECDSA keys are compressed points and its default lifetime has no end:
// both are refused here, and the tests hand it keys and times. It writes the
// external_pub extension without the length that RFC 9420, Section 12.4.3.2
// gives it; node/peer.mjs translates. A member does not notice its removal by a
// commit that gives its leaf to somebody else at once. It has no call to propose
// an Update. It does not report the authenticated data of what it opened.
//
// Never take anything from here into the product: node/ is for tests only, and
// its packages are not part of what is shipped.
package interop
