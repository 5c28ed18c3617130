// SPDX-License-Identifier: Apache-2.0

// Package desk is where officers of an authority read what waits for them and
// hand in what they signed: an HTTP API below /desk/v1/ on the authority's
// listener. It translates, bounds and authenticates; its Backend decides.
//
// First call: New, whose Server is an http.Handler:
//
//	front, err := desk.New(desk.Config{URL: base, Trust: trust, Root: root, Backend: authority, Log: log})
//
// An officer's card signs a statement of kind session over a nonce; that opens
// a bearer token for a quarter of an hour, bound to the officer's key, whose
// standing is asked for again with every request. The token opens reading. What
// changes anything is a statement, and rests on nothing but its own signature.
//
// Never let a token decide anything, and never accept a session statement
// anywhere but in the one request that it is for.
package desk
