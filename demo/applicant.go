// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/acme"

	"valise/attest"
	"valise/hsm"
	"valise/identity"
)

// An applicant walks through an enrollment as somebody else's ACME client
// would: it shares no code with Valise's own client. An honest one passes; an
// intruder is one with a single property changed.
type applicant struct {
	invitation identity.Invitation
	key        crypto.Signer // what a certificate is asked for
	answers    crypto.Signer // what signs the challenge; key if nil
	evidence   attest.Evidence

	// replay, if set, is sent as the answer to the challenge instead of a new one.
	replay []byte
	// sent is what was sent as the answer.
	sent []byte
}

// enroll returns the chain that the authority issued, leaf first.
func (a *applicant) enroll(ctx context.Context) ([][]byte, error) {
	client, err := a.register(ctx)
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	id, err := identity.DeviceIDOf(a.key.Public())
	if err != nil {
		return nil, err
	}
	order, err := client.AuthorizeOrder(ctx, []acme.AuthzID{{Type: "permanent-identifier", Value: id.String()}})
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	if err := a.attest(ctx, client, order.AuthzURLs[0]); err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, a.key)
	if err != nil {
		return nil, err
	}
	chain, _, err := client.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		return nil, fmt.Errorf("finalize: %w", err)
	}
	return chain, nil
}

// register makes an account with a software key of its own, bound by the invitation.
func (a *applicant) register(ctx context.Context) (*acme.Client, error) {
	account, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	client := &acme.Client{
		Key:          account,
		DirectoryURL: a.invitation.URL + "/acme/directory",
		HTTPClient:   pinned(a.invitation.Root),
		RetryBackoff: func(int, *http.Request, *http.Response) time.Duration { return 100 * time.Millisecond },
	}
	_, err = client.Register(ctx, &acme.Account{
		ExternalAccountBinding: &acme.ExternalAccountBinding{KID: a.invitation.KID, Key: a.invitation.Key},
	}, acme.AcceptTOS)
	return client, err
}

// attest answers device-attest-01 and waits for the appraisal.
func (a *applicant) attest(ctx context.Context, client *acme.Client, url string) error {
	authorization, err := client.GetAuthorization(ctx, url)
	if err != nil {
		return err
	}
	for _, challenge := range authorization.Challenges {
		if challenge.Type != "device-attest-01" {
			continue
		}
		if err := a.answer(client, challenge); err != nil {
			return err
		}
		if _, err := client.Accept(ctx, challenge); err != nil {
			return err
		}
		_, err := client.WaitAuthorization(ctx, url)
		return err
	}
	return errors.New("the authority offers no device-attest-01")
}

func (a *applicant) answer(client *acme.Client, challenge *acme.Challenge) error {
	a.sent = a.replay
	if a.sent == nil {
		keyAuthorization, err := client.HTTP01ChallengeResponse(challenge.Token)
		if err != nil {
			return err
		}
		signer := a.answers
		if signer == nil {
			signer = a.key
		}
		answer, err := attest.Answer(signer, []byte(keyAuthorization))
		if err != nil {
			return err
		}
		if a.sent, err = attest.MarshalAttestationObject(attest.NewAttestationObject(a.evidence, answer)); err != nil {
			return err
		}
	}
	payload, err := json.Marshal(map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(a.sent)})
	challenge.Payload = payload
	return err
}

// pinned trusts exactly the authority whose root has this hash.
func pinned(root [32]byte) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // the chain is verified below, against the pinned root
		VerifyConnection: func(cs tls.ConnectionState) error {
			certs := cs.PeerCertificates
			last := certs[len(certs)-1]
			if sha256.Sum256(last.Raw) != root {
				return errors.New("the authority's root is not the one in the invitation")
			}
			roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
			roots.AddCert(last)
			for _, c := range certs[1:] {
				intermediates.AddCert(c)
			}
			_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: cs.ServerName})
			return err
		},
	}}}
}

// cardKey makes a key in a card's slot and returns it with its evidence.
func cardKey(ctx context.Context, card hsm.Token, slot string) (hsm.Key, attest.Evidence, error) {
	key, err := card.Generate(ctx, slot, hsm.GenerateOptions{Algorithm: hsm.P384})
	if err != nil {
		return nil, attest.Evidence{}, err
	}
	evidence, err := evidenceOf(ctx, card, key)
	return key, evidence, err
}

// evidenceOf gathers what a card says about a key and about its key in 9d,
// which is made if it is not there.
func evidenceOf(ctx context.Context, card hsm.Token, key hsm.Key) (attest.Evidence, error) {
	own, err := key.Evidence(ctx)
	if err != nil {
		return attest.Evidence{}, err
	}
	unwrap, err := card.Key(ctx, "9d")
	if errors.Is(err, hsm.ErrNoKey) {
		unwrap, err = card.Generate(ctx, "9d", hsm.GenerateOptions{Algorithm: hsm.P384, Agree: true})
	}
	if err != nil {
		return attest.Evidence{}, err
	}
	second, err := unwrap.Evidence(ctx)
	return attest.Evidence{Format: own.Format, Chain: own.Chain, KeyManagement: second.Chain}, err
}
