// SPDX-License-Identifier: Apache-2.0

// Package valise is the root of Valise, a hardware-backed secure messaging
// gateway. It holds no code, only the tests of the house's rules: which
// package may import which, what every package and every file must have, and
// which words and calls must not appear.
//
// Where to begin reading:
//
//   - README.md says what Valise is and how to see it run, DESIGN.md how it is built.
//   - cmd/valise, cmd/valise-gatewayd and cmd/valise-enrolld are the programs.
//   - spec/ has the protocols, in numbered sections that the code cites.
//   - wire, mls, identity and attest stand on their own and import nothing of ours.
//
// Never import a package of this module against the table in imports_test.go:
// authority, gateway and client meet over the network and nowhere else.
package valise
