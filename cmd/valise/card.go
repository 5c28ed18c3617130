// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"valise/attest"
	"valise/client"
	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
)

// A card is the token of this device with its two keys open.
type card struct {
	token hsm.Token
	sign  hsm.Key
	seal  hsm.Key
	agree ecdh.KeyExchanger // seal
	id    identity.DeviceID
}

// openCard opens the keys that a profile names.
func openCard(ctx context.Context, p *profile, pin hsm.PINFunc) (*card, error) {
	token, err := keys.OpenToken(ctx, p.Card, pin)
	if err != nil {
		return nil, err
	}
	c := &card{token: token}
	if c.sign, err = token.Key(ctx, p.Sign); err != nil {
		return nil, errors.Join(fmt.Errorf("signing key %s: %w", p.Sign, err), c.close())
	}
	if c.seal, err = token.Key(ctx, p.Seal); err != nil {
		return nil, errors.Join(fmt.Errorf("key %s, which opens the vault: %w", p.Seal, err), c.close())
	}
	return c, c.finish()
}

// finish looks at the keys that were opened or generated.
func (c *card) finish() error {
	var err error
	if c.id, err = identity.DeviceIDOf(c.sign.Public()); err != nil {
		return errors.Join(fmt.Errorf("signing key: %w", err), c.close())
	}
	var ok bool
	if c.agree, ok = c.seal.(ecdh.KeyExchanger); !ok {
		return errors.Join(errors.New("the key for the vault cannot agree on secrets"), c.close())
	}
	return nil
}

// warm uses the signing key once, so that the PIN has been shown for it too: later
// uses find the card unlocked.
func (c *card) warm() error {
	digest := sha256.Sum256([]byte("valise unlock"))
	_, err := c.sign.Sign(rand.Reader, digest[:], crypto.SHA256)
	return err
}

// prove tells an enrollment what this hardware says about both keys, or who makes it
// say so. A witnessed key shows possession, and nothing else.
func (c *card) prove(ctx context.Context, n *client.Enrollment, witnessed bool) error {
	n.Device = c.sign
	if witnessed {
		var err error
		n.Evidence, err = attest.WitnessedEvidence(c.sign.Public())
		return err
	}
	if certifier, ok := c.token.(hsm.Certifier); ok {
		n.Prover = &prover{c, certifier}
		return nil
	}
	signing, err := c.sign.Evidence(ctx)
	if errors.Is(err, hsm.ErrNoEvidence) {
		return &hintError{
			text: fmt.Sprintf("evidence of the signing key: %v", err),
			hint: "use a card that can attest its keys; or, if your authority accepts that, have two officers see you make the key, with --witnessed",
		}
	}
	if err != nil {
		return fmt.Errorf("evidence of the signing key: %w", err)
	}
	sealing, err := c.seal.Evidence(ctx)
	if err != nil {
		return fmt.Errorf("evidence of the key that opens the vault: %w", err)
	}
	n.Evidence = attest.Evidence{Format: signing.Format, Chain: signing.Chain, KeyManagement: sealing.Chain}
	return nil
}

// A prover is a TPM with this device's two keys.
type prover struct {
	card *card
	hsm.Certifier
}

var _ client.Prover = (*prover)(nil)

// Certify implements client.Prover.
func (p *prover) Certify(ctx context.Context, nonce []byte) (key, second [][]byte, err error) {
	if key, err = p.Certifier.Certify(ctx, p.card.sign, nonce); err != nil {
		return nil, nil, err
	}
	second, err = p.Certifier.Certify(ctx, p.card.seal, nonce)
	return key, second, err
}

// logout makes the card ask for its PIN again, and lets go of it.
func (c *card) logout() error {
	err := c.token.Logout(context.Background())
	if errors.Is(err, hsm.ErrRemoved) {
		err = nil // a pulled card has forgotten it by itself
	}
	return errors.Join(err, c.close())
}

func (c *card) close() error {
	var err error
	for _, k := range []hsm.Key{c.sign, c.seal} {
		if k != nil {
			err = errors.Join(err, k.Close())
		}
	}
	return errors.Join(err, c.token.Close())
}
