// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strconv"
	"testing"
	"time"

	"valise/identity"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

// A house in a test: an authority with officers; software keys are the double
// of token and cards.
type house struct {
	t                    testing.TB
	rootCert, issuerCert *x509.Certificate
	issuerKey            *ecdsa.PrivateKey
	root                 [32]byte
	curve                elliptic.Curve
}

func newHouse(t testing.TB, curve elliptic.Curve) *house {
	t.Helper()
	h := &house{t: t, curve: curve, issuerKey: newKey(t, curve)}
	rootKey := newKey(t, curve)
	profile := func(key *ecdsa.PrivateKey, serial int64) identity.CAProfile {
		return identity.CAProfile{
			Domain: "interieur.example", PublicKey: key.Public(), Serial: big.NewInt(serial),
			NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(10, 0, 0),
		}
	}
	root, err := identity.RootTemplate(profile(rootKey, 1))
	must(t, err)
	h.rootCert = certify(t, root, root, rootKey)
	issuer, err := identity.IssuerTemplate(profile(h.issuerKey, 2))
	must(t, err)
	h.issuerCert = certify(t, issuer, h.rootCert, rootKey)
	h.root = sha256.Sum256(h.rootCert.Raw)
	return h
}

func (h *house) trust() *identity.Trust {
	return identity.NewTrust(identity.Authority{Domain: "interieur.example", Roots: []*x509.Certificate{h.rootCert}})
}

// A person has a card.
type person struct {
	key   *ecdsa.PrivateKey
	chain [][]byte
}

func (h *house) person(name string, role identity.Role) *person {
	h.t.Helper()
	key := newKey(h.t, h.curve)
	p := identity.OfficerProfile{
		Address: at(h.t, name), PublicKey: key.Public(), Role: role, Tier: identity.TierHardware,
		EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2}, Serial: big.NewInt(77),
		NotBefore: noon.AddDate(0, -1, 0), NotAfter: noon.AddDate(0, 11, 0),
	}
	template, err := p.Template()
	must(h.t, err)
	return &person{key, h.chain(template)}
}

func (h *house) chain(template *x509.Certificate) [][]byte {
	h.t.Helper()
	return [][]byte{certify(h.t, template, h.issuerCert, h.issuerKey).Raw, h.issuerCert.Raw}
}

func (h *house) head() Head {
	return Head{Authority: h.root, ID: NewID(), Time: noon, Expires: noon.Add(SessionLife)}
}

func (h *house) sign(p *person, b Body) []byte {
	h.t.Helper()
	raw, err := Sign(h.t.Context(), p.key, p.chain, h.head(), b)
	must(h.t, err)
	return raw
}

func at(t testing.TB, name string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(name + "@interieur.example")
	must(t, err)
	return a
}

func certify(t testing.TB, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, template.PublicKey, signer)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(t, err)
	return key
}

func spki(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	return der
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clearance(t testing.TB, s string) *identity.Clearance {
	t.Helper()
	c, err := identity.ParseClearanceText(s)
	must(t, err)
	return c
}

// bodies returns one body of each kind, with every member set. Two calls differ
// in every member that can differ.
func bodies(t testing.TB) map[Kind]Body {
	t.Helper()
	device := newKey(t, elliptic.P384())
	id := sha256.Sum256(spki(t, device))
	random := func() (sum [32]byte) {
		_, _ = rand.Read(sum[:])
		return sum
	}
	name := "alice." + NewID()[:1]
	for !isLocal(name) {
		name = "alice." + NewID()[:1]
	}
	n, _ := rand.Int(rand.Reader, big.NewInt(1<<20))
	number := int(n.Int64()) + 2
	address := at(t, name+big.NewInt(int64(number)).String())
	rosterClearance := clearance(t, "1.2.3."+big.NewInt(int64(number)).String()+":restricted+secret")
	text := `for "` + NewID() + `" \ ü`
	return map[Kind]Body{
		KindApproval: &Approval{NewID(), Template{
			Address: address, Device: id, CSRKey: spki(t, device), Role: RoleDevice, Profile: "device" + NewID(), ProfileVersion: number,
			Clearance: rosterClearance, Tier: identity.TierWitnessed, Validity: time.Duration(number) * time.Second,
			Evidence: random(), Appraisal: random(), Witnessed: true,
		}},
		KindRefusal:      &Refusal{NewID(), text},
		KindSuspension:   &Suspension{Target{Kind: TargetPerson, Address: address, Devices: []identity.DeviceID{id}}, text, NewID()},
		KindResumption:   &Resumption{Target{Kind: TargetDevice, Device: id}, text, NewID()},
		KindRevocation:   &Revocation{Target{Kind: TargetSerial, Serial: identity.DeviceID(random()).String(), Devices: []identity.DeviceID{id}}, text, NewID()},
		KindInvitation:   &Invitation{address, NewID()},
		KindRoster:       &Roster{NewID(), address, "Alice " + NewID(), text, rosterClearance, random()},
		KindRemoval:      &Removal{NewID(), address, random(), text},
		KindEndorsements: &Endorsements{NewID(), vendor(t), random()},
		KindAppraisal:    &Appraisal{NewID(), []byte(`{"version":"` + NewID() + `"}`), random()},
		KindProfile: &Profile{
			NewID(), "p" + NewID(), number, 2 + number%2, time.Duration(number) * time.Minute, time.Duration(number) * time.Second,
			[]identity.Tier{identity.TierHardware},
			random(),
		},
		KindAppointment: &Appointment{NewID(), address, identity.RoleAuditor, spki(t, device), random(), random(), random()},
		KindDismissal:   &Dismissal{NewID(), address, text},
		KindBundle:      &Bundle{NewID(), random(), number, random()},
		KindGateway: &Gateway{
			NewID(),
			[]string{"gw" + strconv.Itoa(number) + ".interieur.example", "192.0.2." + strconv.Itoa(number%250), "2001:db8::1"},
			spki(t, device),
			identity.TierHardware, random(), random(), time.Duration(number) * time.Second,
		},
		KindSession: &Session{NewID(), "https://" + address.Local() + ".example"},
	}
}

func isLocal(s string) bool {
	_, err := identity.ParseAddress(s + "@interieur.example")
	return err == nil
}

// vendor makes a file of one certificate.
func vendor(t testing.TB) []byte {
	key := newKey(t, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: noon, NotAfter: noon.AddDate(9, 0, 0), PublicKey: key.Public(), IsCA: true, BasicConstraintsValid: true}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certify(t, template, template, key).Raw})
}

// signer returns somebody whose role may sign a kind.
func (h *house) signer(k Kind) *person { return h.person("olga", Allowed(k)[0]) }

// seal puts a signature behind what it signs.
func seal(signed, signature []byte) []byte {
	return base64.RawURLEncoding.AppendEncode(append(bytes.Clone(signed), '.'), signature)
}

func digestOf(hash crypto.Hash, signed []byte) []byte {
	h := hash.New()
	h.Write(signed)
	return h.Sum(nil)
}
