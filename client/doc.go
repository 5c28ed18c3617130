// SPDX-License-Identifier: Apache-2.0

// Package client is a device's engine: conversations, sending, receiving, files,
// and enrolling. It has no user interface and holds no key: signatures come from a
// crypto.Signer (the card's slot 9a), storage from an unlocked vault.
//
//	engine, err := client.New(ctx, client.Config{
//		Address: alice, Chain: chain, Signer: card9a, Vault: v, Trust: trust, Gateway: "gw.example:7443",
//	})
//	go engine.Run(ctx)                       // connects, and connects again
//	conv, err := engine.Direct(ctx, bob)     // finds or starts a conversation
//	id, err := engine.Send(ctx, client.Draft{Conversation: conv, Text: "hello"})
//	err = engine.Wait(ctx, id)               // the gateway has it on disk
//	events, err := engine.Events(ctx, client.Query{After: cursor})
//
// # How nothing gets lost or doubled
//
// What is to be sent first becomes an intent in the vault. One intent at a time is
// turned into a submission: sealed for the present epoch, given the next counter,
// and written to the vault's one slot in the transaction that also steps the
// ratchet. Only then does it leave, and these bytes leave again after every crash or
// broken connection until the gateway has answered. The answer's effect is one
// transaction too. A message that comes too late for its epoch is sealed again with
// the same id and sequence number, under the same, still free, counter.
//
// A delivery is opened, and plaintext, ratchet state and cursor are written in one
// transaction before it is acknowledged. What cannot be opened is reported to the
// gateway and asked for again from its sender, who keeps what it sent for a while.
//
// A vault that is older than what the gateway has dealt with (a directory copied
// back) sends nothing: see [Engine] and spec/wire.md, Section 5.3.
//
// # Who is believed
//
// Nobody but identity.Trust: every leaf of every group and the gateway's certificate
// are checked against the pinned root. The gateway's word on who sent something is
// compared with the signature inside, and never taken for it.
//
// An authority that keeps a public record is held to it: nobody is let into a group
// whose certificate is not in it, and what was shown of it once never goes back
// (ledger.go, vouch.go; spec/ledger.md, Section 6). Config.RecordRoot turns that on.
//
// Never open one vault with two engines, and never hand the engine a hash to sign:
// there is no way to.
package client
