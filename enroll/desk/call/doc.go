// SPDX-License-Identifier: Apache-2.0

// Package call is how an officer's program talks to the authority's desk: the
// types of its JSON and an HTTP client. spec/statement.md, Section 9, is the
// protocol.
//
// First call: Open, with the settings and a function that has the officer's
// card sign the session:
//
//	desk := &call.Client{URL: "https://enroll.interieur.example", Root: root}
//	err := desk.Open(ctx, func(b *statement.Session) ([]byte, error) { … })
//	requests, err := desk.Requests(ctx)
//
// A refusal is a [*Problem]. Never sign what the desk sends without parsing it:
// [Signable.Parse] gives the body whose words the officer reads.
package call
