// SPDX-License-Identifier: Apache-2.0

package mls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"valise/mls"
)

// guestList trusts whom it names; a real one verifies certificates.
type guestList []string

func (g guestList) Authenticate(c mls.Credential, _ []byte) error {
	for _, name := range g {
		if string(c.Identity) == name {
			return nil
		}
	}
	return fmt.Errorf("%q is not on the list", c.Identity)
}

func identity(name string) mls.Identity {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader) // a smartcard, outside of examples
	check(err)
	return mls.Identity{Credential: mls.BasicCredential([]byte(name)), Signer: key}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Alice founds a group and adds Bob, a relay watches, Bob reads a message.
func Example() {
	now := time.Now()
	cfg := mls.Config{Authenticator: guestList{"alice", "bob"}}

	// Bob publishes a KeyPackage and keeps its secrets.
	bob := identity("bob")
	kp, secrets, err := mls.NewKeyPackage(bob, mls.KeyPackageParams{Lifetime: mls.NewLifetime(now.Add(-time.Hour), now.AddDate(0, 0, 30))})
	check(err)

	// Alice founds the group; the relay starts to follow it.
	alice, err := mls.Create(cfg, identity("alice"), mls.CreateParams{At: now})
	check(err)
	disk := alice.State()
	info, err := alice.GroupInfo()
	check(err)
	relay, err := mls.NewPublicGroup(cfg.Authenticator, info, alice.Tree(), now)
	check(err)

	// Alice adds Bob. The relay accepts the commit, then she applies it.
	check(kp.Verify(cfg.Authenticator, now))
	pending, err := alice.PrepareCommit(mls.CommitParams{Proposals: []mls.Proposal{mls.AddProposal(kp)}, At: now})
	check(err)
	staged, err := relay.Check(pending.Commit, now)
	check(err)
	for _, m := range staged.Added {
		fmt.Printf("relay sees %s added\n", m.Credential.Identity)
	}
	check(relay.Apply(staged))
	disk = pending.Delta.Merge(disk)
	check(alice.Apply(pending.Staged))

	// Bob joins and reads.
	g, err := mls.Join(cfg, bob, pending.Welcome, kp, secrets, mls.JoinParams{Tree: relay.Tree()})
	check(err)
	sealed, err := alice.Encrypt([]byte("the cabinet meets at nine"), []byte("header, in clear"))
	check(err)
	disk = sealed.Delta.Merge(disk) // before the message is sent
	received, err := g.Receive(sealed.Message, now)
	check(err)
	fmt.Printf("bob reads %q from %s under %q\n", received.Plaintext, received.Sender.Credential.Identity, received.AuthenticatedData)

	// What is on Alice's disk is her group.
	fmt.Println(len(disk) == len(alice.State()))
	// Output:
	// relay sees bob added
	// bob reads "the cabinet meets at nine" from alice under "header, in clear"
	// true
}
