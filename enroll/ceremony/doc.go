// SPDX-License-Identifier: Apache-2.0

// Package ceremony reads and writes the papers with which an authority is
// founded: an officer's application, the plan that the people in the room agree
// on, and the record that they sign. It makes no key and issues nothing.
//
// Each officer applies beforehand with a card of their own, at their own
// machine (valise officer apply):
//
//	a, err := ceremony.Apply(ceremony.Founding("Founding of interieur.example"), address, role, key, evidence)
//	data, err := a.Marshal() // the file that goes to the ceremony
//
// At the ceremony (valise-enrolld init --ceremony FILE):
//
//	plan, err := ceremony.ParsePlan(text)
//	application, err := ceremony.ParseApplication(data)
//	result, err := application.Appraise(endorsements, &policy, now)
//
// An application proves that its key was made on a card, in slot 9c, and asks
// for the PIN every time; that whoever applies has the card and its PIN; and
// that this was done for this occasion, this address and this role, and no
// other. It proves nothing about who holds the card: that is what the people
// in the room are there for.
//
// Never take address, role or key of an application before Appraise has
// accepted it, and never for another occasion than the one at hand.
package ceremony
