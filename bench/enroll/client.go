// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/acme"

	"valise/attest"
	"valise/enroll/enrolltest"
)

// A card is what a client enrolls: the double of a YubiKey, with its key in
// software, so that the cards do not set the pace. Its evidence has the real shape
// and is signed under a vendor's root that both authorities are told of.
type card struct {
	*enrolltest.Card
	serial int64
	csr    []byte
}

// maker makes cards with the tests' code, which reports through a testing.TB.
type maker struct{ testing.TB }

func (maker) Helper()           {}
func (maker) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func newCard(vendor *enrolltest.Vendor, curve elliptic.Curve, serial int64) *card {
	c := vendor.Card(maker{}, enrolltest.CardConfig{Curve: curve, Serial: serial})
	return &card{Card: c, serial: serial, csr: enrolltest.CSR(maker{}, c.Key)}
}

// A client is golang.org/x/crypto/acme with an account, over one kept connection.
// It is the same code for both authorities.
type client struct {
	acme       *acme.Client
	card       *card
	identifier string
	// wrapped signatures are byte strings in CBOR within the byte string, which is
	// how step-ca reads them.
	wrapped bool
}

// object is the attestation object for a key authorization.
func (c *client) object(keyAuthorization string) (string, error) {
	answer, err := attest.Answer(c.card.Key, []byte(keyAuthorization))
	if err != nil {
		return "", err
	}
	if c.wrapped {
		if answer.Signature, err = cbor.Marshal(answer.Signature); err != nil {
			return "", err
		}
	}
	object, err := attest.MarshalAttestationObject(attest.NewAttestationObject(c.card.Evidence, answer))
	return base64.RawURLEncoding.EncodeToString(object), err
}

// newClient makes an account.
func newClient(ctx context.Context, directory string, roots *x509.CertPool, binding *acme.ExternalAccountBinding) (*acme.Client, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &acme.Client{
		Key: key, DirectoryURL: directory,
		HTTPClient: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 1,
		}},
	}
	_, err = c.Register(ctx, &acme.Account{ExternalAccountBinding: binding}, acme.AcceptTOS)
	return c, err
}

// enroll gets one certificate: five POSTs, each with a nonce of its own.
func (c *client) enroll(ctx context.Context) error {
	order, err := c.acme.AuthorizeOrder(ctx, []acme.AuthzID{{Type: "permanent-identifier", Value: c.identifier}})
	if err != nil {
		return fmt.Errorf("order: %w", err)
	}
	authz, err := c.acme.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	challenge := authz.Challenges[0]
	answer, err := c.acme.HTTP01ChallengeResponse(challenge.Token) // token.thumbprint, for any challenge
	if err != nil {
		return err
	}
	object, err := c.object(answer)
	if err != nil {
		return err
	}
	challenge.Payload = json.RawMessage(`{"attObj":"` + object + `"}`)
	if challenge, err = c.acme.Accept(ctx, challenge); err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	if challenge.Status != acme.StatusValid {
		return fmt.Errorf("challenge: %s: %w", challenge.Status, challenge.Error)
	}
	chain, _, err := c.acme.CreateOrderCert(ctx, order.FinalizeURL, c.card.csr, true)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	if !c.card.Key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("the certificate is for another key")
	}
	return nil
}
