// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"valise/internal/keys"
	"valise/internal/stage"
)

const domain = "interieur.example"

func (d *demo) insertCards(ctx context.Context) error {
	d.screen.step("Cards are inserted. No physical card is used: each is a VIRTUAL CARD behind a real pcscd")
	d.root = d.stage.AttestationRoot("attestation")
	for i, who := range []**person{&d.alice, &d.bob} {
		name := []string{"alice", "bob"}[i]
		card, err := d.stage.NewCard(ctx, d.root, uint32(10000001+i))
		if err != nil {
			return err
		}
		reader, err := d.stage.NewReader(ctx, name, card)
		if err != nil {
			return err
		}
		*who = newPerson(d.stage.NewOfficial(name, name+"@"+domain, card))
		d.screen.say("%s: virtual card, serial %d, at %s", name, card.Serial, reader.Env[0])
	}
	for i, who := range []**stage.Officer{&d.olga, &d.oskar} {
		name := []string{"olga", "oskar"}[i]
		card, err := d.stage.NewCard(ctx, d.root, uint32(10000003+i))
		if err != nil {
			return err
		}
		reader, err := d.stage.NewReader(ctx, name, card)
		if err != nil {
			return err
		}
		*who = d.stage.NewOfficer(name, name+"@"+domain, "officer", card)
		d.screen.say("%s, security officer: virtual card, serial %d, at %s", name, card.Serial, reader.Env[0])
	}
	var err error
	d.rootPEM, err = d.stage.RootPEM(ctx, d.root)
	return err
}

func (d *demo) foundAuthority(ctx context.Context) (err error) {
	d.screen.step("An authority is founded in a ceremony; its keys are made in two PKCS#11 tokens (SoftHSM)")
	roster := []string{
		"alice@" + domain + ",Alice Martin,Cabinet," + secretClearance,
		"bob@" + domain + ",Bob Petit,Embassy," + secretClearance,
		"carol@" + domain + ",Carol Roux,Registry,",
	}
	officers := []*stage.Officer{d.olga, d.oskar}
	if d.authority, err = d.stage.NewMinistry(ctx, "authority", domain, roster, officers, d.rootPEM); err != nil {
		return err
	}
	d.screen.say("the root's token goes back into the safe; Olga and Oskar have keys in slot 9c, with a PIN for every signature")
	d.screen.say("%s answers; three people are on its roster, each line signed by both officers", d.authority.URL)
	return nil
}

func (d *demo) startGateway(ctx context.Context) (err error) {
	d.screen.step("A gateway makes its TLS key in a token of its own and is certified (tier: witnessed)")
	if d.gateway, err = d.stage.NewGateway(ctx, d.authority); err != nil {
		return err
	}
	d.screen.say("the gateway listens on QUIC at %s", d.gateway.Address)
	return nil
}

func (d *demo) enroll(ctx context.Context) error {
	d.screen.step("Two officials enroll: keys made on the card, evidence appraised, approved by both officers with their cards")
	for _, p := range []*person{d.alice, d.bob} {
		out, err := p.Enroll(ctx, d.authority, d.gateway)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			d.screen.say("%s: %s", p.Name, strings.TrimRight(line, "\n"))
		}
		if err := p.Unlock(ctx); err != nil {
			return err
		}
		if err := p.receive(d.stage); err != nil {
			return err
		}
	}
	_, err := stage.Poll(ctx, "each to see the other among the contacts", func() (struct{}, bool, error) {
		forAlice, err1 := d.alice.Run(ctx, "contacts")
		forBob, err2 := d.bob.Run(ctx, "contacts")
		online := err1 == nil && err2 == nil
		return struct{}{}, online && strings.Contains(forAlice, d.bob.Address) && strings.Contains(forBob, d.alice.Address), nil
	})
	return err
}

func (d *demo) writeBothWays(ctx context.Context) error {
	d.screen.step("Text both ways, sealed with MLS (RFC 9420) on the hybrid post-quantum suite")
	rounds := 5
	if d.short {
		rounds = 1
	}
	for i := range rounds {
		if err := d.alice.write(ctx, d.bob, fmt.Sprintf("Bob, line %d. Are you there?", i+1)); err != nil {
			return err
		}
		if err := d.bob.write(ctx, d.alice, fmt.Sprintf("Alice, I am. Line %d.", i+1)); err != nil {
			return err
		}
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.screen.say("%d texts sent and received", 2*rounds)
	number, err := d.alice.Run(ctx, "verify", d.bob.Address)
	if err != nil {
		return err
	}
	for line := range strings.Lines(number) {
		d.screen.say("%s", strings.TrimRight(line, "\n"))
	}
	return nil
}

func (d *demo) writeWhileAway(ctx context.Context) error {
	d.screen.step("Bob locks his device and goes away; Alice goes on writing")
	if _, err := d.bob.Run(ctx, "lock"); err != nil {
		return err
	}
	n := 10
	if d.short {
		n = 2
	}
	for i := range n {
		if err := d.alice.write(ctx, d.bob, fmt.Sprintf("While you are away, %d of %d.", i+1, n)); err != nil {
			return err
		}
	}
	d.screen.say("%d texts are in Bob's mailbox, on the gateway's disk", n)
	if err := d.bob.Unlock(ctx); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.screen.say("Bob is back and has them")
	return nil
}

// sendFile pulls the receiver's card while a file is on its way.
func (d *demo) sendFile(ctx context.Context) error {
	size := 20 << 20
	if d.short {
		size = 2 << 20
	}
	d.screen.step("A file of %d MiB, while Bob's card is pulled out and put back", size>>20)
	sending, err := d.alice.sendFile(ctx, d.bob, size)
	if err != nil {
		return err
	}
	if err := d.bob.Card.Eject(ctx); err != nil {
		return err
	}
	d.screen.say("Bob's card is out: his device has locked itself")
	if err := <-sending; err != nil {
		return err
	}
	if err := d.bob.Card.Insert(ctx); err != nil {
		return err
	}
	if err := d.bob.Unlock(ctx); err != nil {
		return err
	}
	d.screen.say("Bob's card is back in, and the PIN was asked for again")
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.screen.say("the file has arrived")
	return nil
}

// killGateway kills the gateway while both write.
func (d *demo) killGateway(ctx context.Context) error {
	d.screen.step("The gateway is killed (kill -9) while both write, and started again")
	n := 6
	if d.short {
		n = 2
	}
	results, under := make(chan error, 2), make(chan struct{}, 4)
	for _, pair := range [][2]*person{{d.alice, d.bob}, {d.bob, d.alice}} {
		go func() {
			defer func() { under <- struct{}{} }()
			for i := range n {
				if err := pair[0].write(ctx, pair[1], fmt.Sprintf("%s writes through the storm, %d of %d.", pair[0].Name, i+1, n)); err != nil {
					results <- err
					return
				}
				if i == 0 {
					under <- struct{}{}
				}
			}
			results <- nil
		}()
	}
	for range 2 { // the first text of each is through: the others are on their way
		select {
		case <-under:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.gateway.Process().Kill()
	if err := d.gateway.Start(ctx); err != nil {
		return err
	}
	for range 2 {
		if err := <-results; err != nil {
			return err
		}
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.screen.say("%d texts sent meanwhile, all arrived", 2*n)
	return nil
}

func (d *demo) intrudeEnrollment(ctx context.Context) error {
	d.screen.step("Intruders at the authority, each beside an honest control that passes")
	good, err := d.stage.NewCard(ctx, d.root, 66600001)
	if err != nil {
		return err
	}
	rogue, err := d.stage.NewCard(ctx, d.stage.AttestationRoot("other"), 66600002)
	if err != nil {
		return err
	}
	reader, err := d.stage.NewReader(ctx, "mallory", good, rogue)
	if err != nil {
		return err
	}
	// This process reads these two cards itself; it has used no other reader.
	name, socket, _ := strings.Cut(reader.Env[0], "=")
	if err := os.Setenv(name, socket); err != nil {
		return err
	}
	pin := keys.PINFromFile(filepath.Join(d.stage.Dir, "pin"))
	d.mallory = &mallory{authority: d.authority, olga: d.olga, address: "carol@" + domain, place: good, lenient: d.sabotage == "admit"}
	if d.mallory.card, err = keys.OpenToken(ctx, fmt.Sprintf("piv:?serial=%d", good.Serial), pin); err != nil {
		return err
	}
	if d.mallory.rogue, err = keys.OpenToken(ctx, fmt.Sprintf("piv:?serial=%d", rogue.Serial), pin); err != nil {
		return err
	}
	return d.try(ctx, d.mallory.enrollTrials())
}

func (d *demo) intrudeGateway(ctx context.Context) error {
	d.screen.step("Intruders at the gateway")
	honest, err := d.mallory.device(ctx, d.authority)
	if err != nil {
		return err
	}
	other, err := d.stage.NewAuthority(ctx, "other-authority", domain,
		[]string{"carol@" + domain + ",Carol Roux,Registry,"}, d.rootPEM)
	if err != nil {
		return err
	}
	stranger, err := d.mallory.device(ctx, other)
	if err != nil {
		return err
	}
	stolen, err := d.steal(ctx)
	if err != nil {
		return err
	}
	v := &visitor{gateway: d.gateway, root: d.authority.Root}
	return d.try(ctx, v.gatewayTrials(honest, stranger, stolen))
}

func (d *demo) try(ctx context.Context, trials []*trial) error {
	for _, t := range trials {
		if err := t.run(ctx, d.screen); err != nil {
			return err
		}
		d.refused++
	}
	return nil
}
