// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"testing"

	"github.com/mholt/acmez/v3"
	acmezacme "github.com/mholt/acmez/v3/acme"
	xacme "golang.org/x/crypto/acme"

	"valise/attest"
	"valise/enroll/enrolltest"
	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// permanentIdentifier is the subjectAltName that acmez wants in the CSR (RFC 4043):
// its own check compares it with the order.
func permanentIdentifier(t *testing.T, id string) pkix.Extension {
	t.Helper()
	inner, err := asn1.Marshal(struct {
		ID string `asn1:"utf8"`
	}{id})
	if err != nil {
		t.Fatal(err)
	}
	other, err := asn1.MarshalWithParams(struct {
		OID   asn1.ObjectIdentifier
		Value asn1.RawValue
	}{
		asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 3},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner},
	}, "tag:0")
	if err != nil {
		t.Fatal(err)
	}
	names, err := asn1.Marshal([]asn1.RawValue{{FullBytes: other}})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}
}

// solver answers device-attest-01 for acmez.
type solver struct {
	t      *testing.T
	key    crypto.Signer
	ev     attest.Evidence
	calls  int
	spoils bool
}

func (s *solver) Present(context.Context, acmezacme.Challenge) error { return nil }
func (s *solver) CleanUp(context.Context, acmezacme.Challenge) error { return nil }
func (s *solver) Payload(_ context.Context, c acmezacme.Challenge) (any, error) {
	s.calls++
	answer := c.KeyAuthorization
	if s.spoils {
		answer += "x"
	}
	object := enrolltest.Answer(s.t, s.key, s.ev, answer)
	return map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(object)}, nil
}

func accountKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// enrollWithACMEZ enrolls with github.com/mholt/acmez, which shares no code with us.
func enrollWithACMEZ(t *testing.T, s *site, inv identity.Invitation, key crypto.Signer, ev attest.Evidence, spoil bool) ([][]byte, error) {
	t.Helper()
	ctx := t.Context()
	answers := &solver{t: t, key: key, ev: ev, spoils: spoil}
	client := acmez.Client{
		Client:           &acmezacme.Client{Directory: s.server.URL + "/acme/directory", HTTPClient: s.server.Client()},
		ChallengeSolvers: map[string]acmez.Solver{acmezacme.ChallengeTypeDeviceAttest01: answers},
	}
	account := acmezacme.Account{TermsOfServiceAgreed: true, PrivateKey: accountKey(t)}
	eab := acmezacme.EAB{KeyID: inv.KID, MACKey: base64.RawURLEncoding.EncodeToString(inv.Key)}
	if err := account.SetExternalAccountBinding(ctx, client.Client, eab); err != nil {
		t.Fatal(err)
	}
	account, err := client.NewAccount(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(enrolltest.CSR(t, key, permanentIdentifier(t, id.String())))
	if err != nil {
		t.Fatal(err)
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := client.ObtainCertificate(ctx, params)
	if err != nil {
		return nil, err
	}
	if answers.calls != 1 {
		t.Errorf("%d answers to the challenge", answers.calls)
	}
	var chain [][]byte
	for block, rest := pem.Decode(certs[0].ChainPEM); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	return chain, nil
}

func TestACMEZ(t *testing.T) {
	s := newSite(t, options{})
	card := s.card()
	chain, err := enrollWithACMEZ(t, s, s.invite("alice"), card.Key, card.Evidence, false)
	if err != nil {
		t.Fatal(err)
	}
	if device := s.check(chain, "alice"); device.ID != card.ID(t) {
		t.Error("issued for another key")
	}
	if _, err := enrollWithACMEZ(t, s, s.invite("alice"), card.Key, card.Evidence, true); err == nil {
		t.Error("a wrong answer was accepted")
	}
	if got := s.audit.last(t); got != "challenge_mismatch" {
		t.Errorf("the audit stream says %q", got)
	}
}

// golang.org/x/crypto/acme, with P-384 for the device.
func TestXCryptoACME(t *testing.T) {
	s := newSite(t, options{curve: elliptic.P384()})
	ctx, inv := t.Context(), s.invite("bob")
	card := s.vendor.Card(t, enrolltest.CardConfig{Curve: elliptic.P384()})
	client := &xacme.Client{Key: accountKey(t), HTTPClient: s.server.Client(), DirectoryURL: s.server.URL + "/acme/directory"}
	_, err := client.Register(ctx, &xacme.Account{
		ExternalAccountBinding: &xacme.ExternalAccountBinding{KID: inv.KID, Key: inv.Key},
	}, xacme.AcceptTOS)
	if err != nil {
		t.Fatal(err)
	}
	order, err := client.AuthorizeOrder(ctx, []xacme.AuthzID{{Type: "permanent-identifier", Value: card.ID(t).String()}})
	if err != nil {
		t.Fatal(err)
	}
	authz, err := client.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		t.Fatal(err)
	}
	challenge := authz.Challenges[0]
	keyAuthorization, err := client.HTTP01ChallengeResponse(challenge.Token) // token.thumbprint
	if err != nil {
		t.Fatal(err)
	}
	object := base64.RawURLEncoding.EncodeToString(card.Answer(t, keyAuthorization))
	challenge.Payload = json.RawMessage(`{"attObj":"` + object + `"}`)
	if _, err := client.Accept(ctx, challenge); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WaitAuthorization(ctx, authz.URI); err != nil {
		t.Fatal(err)
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		t.Fatal(err)
	}
	chain, _, err := client.CreateOrderCert(ctx, order.FinalizeURL, enrolltest.CSR(t, card.Key), true)
	if err != nil {
		t.Fatal(err)
	}
	s.check(chain, "bob")
}

// The real thing at both ends of the protocol: a virtual PIV card in a real reader,
// its evidence, and acmez.
func TestEnrollWithCard(t *testing.T) {
	virtual := testenv.Card(t, testcard.Config{})
	endorsed, err := attest.Configured(virtual.RootPEM)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, options{endorsed: endorsed, curve: elliptic.P384()})
	s.policy.MinFirmware = "5.4.0" // what virtual cards state; real ones below 5.7.0 are still refused
	card, err := keys.OpenToken(t.Context(), "piv:", func(context.Context, hsm.PINRequest) (string, error) { return virtual.PIN, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	var ev attest.Evidence
	var key hsm.Key
	for _, slot := range []string{"9a", "9d"} {
		made, err := card.Generate(t.Context(), slot, hsm.GenerateOptions{Algorithm: hsm.P384})
		if err != nil {
			t.Fatal(err)
		}
		said, err := made.Evidence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if slot == "9a" {
			key, ev.Format, ev.Chain = made, said.Format, said.Chain
		} else {
			ev.KeyManagement = said.Chain
		}
	}
	chain, err := enrollWithACMEZ(t, s, s.invite("alice"), key, ev, false)
	if err != nil {
		t.Fatal(err)
	}
	s.check(chain, "alice")

	// The control differs in the vendor's root only.
	strangers := newSite(t, options{})
	if _, err := enrollWithACMEZ(t, strangers, strangers.invite("alice"), key, ev, false); err == nil {
		t.Error("a card of another vendor was accepted")
	}
	if got := strangers.audit.last(t); got != "unknown_root" {
		t.Errorf("the audit stream says %q", got)
	}
}

// A device pins the root by the hash in its invitation.
func TestInvitationNamesTheRoot(t *testing.T) {
	s := newSite(t, options{})
	inv := s.invite("alice")
	code, err := inv.Code()
	if err != nil {
		t.Fatal(err)
	}
	got, err := identity.ParseInvitation(code)
	if err != nil || got.URL != s.server.URL || got.Address.String() != "alice@interieur.example" {
		t.Errorf("%+v, %v", got, err)
	}
	key := accountKey(t)
	i, err := s.ca.IssueServer(t.Context(), key.Public(), []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.server.Config.Handler}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{
		Certificate: append([][]byte{i.Certificate}, s.ca.Chain()...), PrivateKey: key,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(ln) }()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.root)
	conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shown := conn.ConnectionState().PeerCertificates
	if root := shown[len(shown)-1]; identity.Fingerprint(root) != hexOf(got.Root) {
		t.Error("the chain does not end in the invitation's root")
	}
}
