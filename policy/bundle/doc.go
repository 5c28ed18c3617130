// SPDX-License-Identifier: Apache-2.0

// Package bundle is everything that decides about labels, as one signed file:
// policies (SPIFs), rules in Cedar, the table of domains, and the decisions
// that all of it must come to. Two officers sign it; gateways and clients load
// it whole or not at all.
//
//	signed, err := bundle.ParseSigned(data)
//	b, err := signed.Open(verify, time.Now())     // signatures, contents, tests
//	err = holder.Load(b)                          // refuses an older one
//	v := holder.Now().Decide(&bundle.Route{…}, time.Now())
//
// Officers write a folder (see [Pack]):
//
//	policies/*.xml       SPIFs
//	rules.cedar          rules, which only restrict; package rules
//	rules.cedarschema    what they are written against: rules.Schema
//	domains.json         see Domains
//	tests.json           see Test
//
// A route is decided in three steps that all have to agree: the label against
// both ends' clearances (package policy), the table of domains, the rules. Each
// refusal has a Reason for the audit stream.
//
// The format is spec/bundle.md. Never decide with contents that did not come
// out of Open: what is compiled alone has been signed by nobody.
package bundle
