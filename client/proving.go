// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"valise/attest"
)

// A Prover makes evidence for one challenge: a TPM (spec/enrollment.md, Section
// 5.2).
type Prover interface {
	// Endorsement returns the TPM's certificate, with what stands above it if
	// that is known, and the public area of its attestation key.
	Endorsement(ctx context.Context) (chain [][]byte, attestationKey []byte, err error)
	// Activate opens a credential.
	Activate(ctx context.Context, credential, secret []byte) ([]byte, error)
	// Certify has the TPM certify the device's key, and the second one if second
	// is to be certified too, with nonce in what it signs.
	Certify(ctx context.Context, nonce []byte) (key, second [][]byte, err error)
}

// maxAnswer bounds what the authority answers outside of ACME's own objects.
const maxAnswer = 64 << 10

// proveTPM completes an answer to the challenge with the TPM's evidence.
func (n *Enrollment) proveTPM(ctx context.Context, c *acme.Client, authorization string, answer *attest.Challenge) (attest.Evidence, error) {
	none := attest.Evidence{}
	chain, ak, err := n.Prover.Endorsement(ctx)
	if err != nil {
		return none, err
	}
	credential, secret, err := n.credential(ctx, c, authorization, chain, ak)
	if err != nil {
		return none, fmt.Errorf("the authority refuses this TPM: %w", problem(err))
	}
	if answer.Activation, err = n.Prover.Activate(ctx, credential, secret); err != nil {
		return none, err
	}
	key, second, err := n.Prover.Certify(ctx, attest.CertificationNonce(answer.KeyAuthorization))
	if err != nil {
		return none, err
	}
	parts := append(append(append([][]byte{}, key...), ak), chain...)
	return attest.Evidence{Format: attest.FormatTPM, Chain: parts, KeyManagement: second}, nil
}

// credential asks for what the TPM must open.
func (n *Enrollment) credential(ctx context.Context, c *acme.Client, authorization string, chain [][]byte, ak []byte) (credential, secret []byte, err error) {
	var directory struct {
		NewNonce string `json:"newNonce"`
		TPM      string `json:"valiseTpm"`
	}
	if err := n.fetch(ctx, c, http.MethodGet, n.URL+acmeDirectory, nil, &directory, nil); err != nil {
		return nil, nil, err
	}
	// The account's key signs for this authority and no other.
	if !strings.HasPrefix(directory.TPM, n.URL+"/") || !strings.HasPrefix(directory.NewNonce, n.URL+"/") {
		return nil, nil, &hintError{"the authority accepts no keys in TPMs", "enroll with a card"}
	}
	var header http.Header
	if err := n.fetch(ctx, c, http.MethodHead, directory.NewNonce, nil, nil, &header); err != nil {
		return nil, nil, err
	}
	request := map[string]any{"authorization": authorization, "ak": base64.RawURLEncoding.EncodeToString(ak)}
	var certificates []string
	for _, der := range chain {
		certificates = append(certificates, base64.RawURLEncoding.EncodeToString(der))
	}
	request["x5c"] = certificates
	body, err := signJWS(n.Account, string(c.KID), header.Get("Replay-Nonce"), directory.TPM, request)
	if err != nil {
		return nil, nil, err
	}
	var answer struct{ Credential, Secret string }
	if err := n.fetch(ctx, c, http.MethodPost, directory.TPM, body, &answer, nil); err != nil {
		return nil, nil, err
	}
	credential, err = base64.RawURLEncoding.DecodeString(answer.Credential)
	if err == nil {
		secret, err = base64.RawURLEncoding.DecodeString(answer.Secret)
	}
	return credential, secret, err
}

// fetch sends a request of ours over the ACME client's connections. A refusal is an
// *acme.Error, as from that client.
func (n *Enrollment) fetch(ctx context.Context, c *acme.Client, method, url string, body []byte, into any, header *http.Header) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/jose+json")
	}
	res, err := c.HTTPClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		var p struct{ Type, Detail string }
		_ = json.Unmarshal(data, &p) // what is no problem document leaves the status
		return &acme.Error{StatusCode: res.StatusCode, ProblemType: p.Type, Detail: p.Detail, Header: res.Header}
	}
	if header != nil {
		*header = res.Header
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: the answer is not what was asked for: %w", url, err)
	}
	return nil
}

// signJWS signs a request (RFC 8555, Section 6.2) with the account's key: ES256 or
// ES384 (RFC 7518, Section 3.4), flattened JSON serialization.
func signJWS(key crypto.Signer, kid, nonce, url string, payload any) ([]byte, error) {
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("the account's key is not an ECDSA key")
	}
	alg, size := "ES256", 32
	if public.Curve == elliptic.P384() {
		alg, size = "ES384", 48
	}
	protected, err := json.Marshal(map[string]string{"alg": alg, "kid": kid, "nonce": nonce, "url": url})
	if err != nil {
		return nil, err
	}
	content, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	input := []byte(encode(protected) + "." + encode(content))
	var der []byte
	if alg == "ES256" {
		sum := sha256.Sum256(input)
		der, err = key.Sign(rand.Reader, sum[:], crypto.SHA256)
	} else {
		sum := sha512.Sum384(input)
		der, err = key.Sign(rand.Reader, sum[:], crypto.SHA384)
	}
	if err != nil {
		return nil, err
	}
	var seq cryptobyte.String
	r, s := new(big.Int), new(big.Int)
	in := cryptobyte.String(der)
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1Integer(r) || !seq.ReadASN1Integer(s) {
		return nil, errors.New("the account's key made a malformed signature")
	}
	signature := make([]byte, 2*size)
	r.FillBytes(signature[:size])
	s.FillBytes(signature[size:])
	return json.Marshal(map[string]string{"protected": encode(protected), "payload": encode(content), "signature": encode(signature)})
}
