// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"testing"
	"time"
)

// A tpmScene is a TPM in a test, in every shape that a real one would not take:
// structures byte for byte, and keys in software. What a real TPM makes is verified
// in TestTPMReal and in package enroll.
type tpmScene struct {
	t                testing.TB
	maker            *maker
	ek, ak           *ecdsa.PrivateKey
	key, second      *ecdsa.PrivateKey
	ekShape          []alter
	akArea           tpmPublic
	keyArea          tpmPublic
	secondArea       tpmPublic
	nonce            []byte
	statement        func([]byte) []byte // changes it before it is signed
	signature        func([]byte) []byte // changes it afterwards
	shownKey         []byte              // another public area than the certified one
	withoutSecond    bool
	activationKey    []byte
	activation       []byte // nil: what this TPM would give out
	evidence         func(*Evidence)
	policy           AppraisalPolicy
	input            Input
	keyAuthorization []byte
	endorsed         *Endorsements
	signer           crypto.Signer // of the challenge
}

const deviceAttributes = tpmFixedTPM | tpmFixedParent | tpmSensitiveDataOrigin | 1<<6 | tpmSign

func honestTPM(t testing.TB) *tpmScene {
	s := &tpmScene{
		t: t, maker: newMaker(t), ek: newKey(t, elliptic.P384()), ak: newKey(t, elliptic.P256()),
		key: newKey(t, elliptic.P384()), second: newKey(t, elliptic.P256()),
		akArea:           tpmPublic{nameAlg: tpmSHA256, attributes: akAttributes | 1<<6, scheme: tpmECDSA, hash: tpmSHA256},
		keyArea:          tpmPublic{nameAlg: tpmSHA384, attributes: deviceAttributes, scheme: tpmNull},
		secondArea:       tpmPublic{nameAlg: tpmSHA256, attributes: deviceAttributes | tpmDecrypt, scheme: tpmNull},
		keyAuthorization: []byte("token.thumbprint"), activationKey: []byte("the verifier's own"),
		policy: AppraisalPolicy{TPM: true},
	}
	s.nonce = CertificationNonce(s.keyAuthorization)
	s.input = Input{PublicKey: s.key.Public(), Now: judgedAt}
	s.endorsed, s.signer = s.maker.endorsements(), s.key
	return s
}

// area marshals a public area (TPM 2.0 Part 2, Section 12.2.4).
func area(p tpmPublic, key *ecdsa.PublicKey) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(nil, tpmECC)
	b = be.AppendUint32(be.AppendUint16(b, p.nameAlg), p.attributes)
	b = be.AppendUint16(be.AppendUint16(be.AppendUint16(b, 0), tpmNull), p.scheme)
	if p.scheme != tpmNull {
		b = be.AppendUint16(b, p.hash)
	}
	curve := uint16(tpmP256)
	if key.Curve == elliptic.P384() {
		curve = tpmP384
	}
	point := must(key.Bytes())
	half := (len(point) + 1) / 2
	b = be.AppendUint16(be.AppendUint16(b, curve), tpmNull)
	return append2B(append2B(b, point[1:half]), point[half:])
}

func append2B(b, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...)
}

// certify makes a statement about a public area, and the AK's signature.
func (s *tpmScene) certify(public []byte) (statement, signature []byte) {
	be := binary.BigEndian
	parsed := must(parseTPMPublic(public))
	b := be.AppendUint16(be.AppendUint32(nil, tpmGenerated), tpmCertify)
	b = append2B(append2B(b, []byte("qualified signer")), s.nonce)
	b = append(b, make([]byte, 8+4+4+1+8)...)
	b = append2B(append2B(b, parsed.name()), []byte("qualified name"))
	if s.statement != nil {
		b = s.statement(b)
	}
	sum := sha256.Sum256(b)
	r, sig := must2(ecdsa.Sign(rand.Reader, s.ak, sum[:]))
	signature = be.AppendUint16(be.AppendUint16(nil, tpmECDSA), tpmSHA256)
	signature = append2B(append2B(signature, r.Bytes()), sig.Bytes())
	if s.signature != nil {
		signature = s.signature(signature)
	}
	return b, signature
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// certificate is the EK's, of the shape that the profile asks for.
func (s *tpmScene) certificate() *x509.Certificate {
	name := must(asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 4, IsCompound: true, Bytes: must(asn1.Marshal(pkix.Name{
		ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 1}, Value: "id:00001014"}},
	}.ToRDNSequence()))}}))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: made, NotAfter: forEver, KeyUsage: x509.KeyUsageKeyAgreement,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEK},
		ExtraExtensions:    []pkix.Extension{{Id: oidAltName, Critical: true, Value: name}},
	}
	apply(template, s.ekShape)
	return sign(s.t, template, s.maker.root, s.ek.Public(), s.maker.key)
}

// play returns the reason of a refusal, or "".
func (s *tpmScene) play() Reason {
	s.t.Helper()
	ek, ak := s.certificate(), area(s.akArea, &s.ak.PublicKey)
	public := area(s.keyArea, &s.key.PublicKey)
	statement, signature := s.certify(public)
	if s.shownKey != nil {
		public = s.shownKey
	}
	ev := Evidence{Format: FormatTPM, Chain: [][]byte{public, statement, signature, ak, ek.Raw}}
	if !s.withoutSecond {
		public := area(s.secondArea, &s.second.PublicKey)
		statement, signature := s.certify(public)
		ev.KeyManagement = [][]byte{public, statement, signature}
	}
	if s.evidence != nil {
		s.evidence(&ev)
	}
	answer, err := Answer(s.signer, s.keyAuthorization)
	if err != nil {
		s.t.Fatal(err)
	}
	answer.ActivationKey, answer.Activation = s.activationKey, s.activation
	if answer.Activation == nil {
		answer.Activation = ActivationSecret([]byte("the verifier's own"), s.keyAuthorization, ek, must(parseTPMPublic(ak)).name())
	}
	claims, err := Verify(ev, answer, s.endorsed, judgedAt)
	if err != nil {
		if ReasonOf(err) == "" {
			s.t.Errorf("no reason: %v", err)
		}
		return ReasonOf(err)
	}
	r := s.policy.Appraise(claims, s.input)
	if r.Accepted() != (r.Tier == TierHardware) {
		s.t.Errorf("%s, tier %q", r.Verdict, r.Tier)
	}
	return r.Reason()
}

// TestTPMRefuses changes one thing at a time; the honest TPM is accepted.
func TestTPMRefuses(t *testing.T) {
	attributes := func(set, clear uint32) func(*tpmScene) {
		return func(s *tpmScene) { s.keyArea.attributes = s.keyArea.attributes&^clear | set }
	}
	akAttribute := func(set, clear uint32) func(*tpmScene) {
		return func(s *tpmScene) { s.akArea.attributes = s.akArea.attributes&^clear | set }
	}
	shape := func(change alter) func(*tpmScene) { return func(s *tpmScene) { s.ekShape = []alter{change} } }
	part := func(n int, change func([]byte) []byte) func(*tpmScene) {
		return func(s *tpmScene) { s.evidence = func(ev *Evidence) { ev.Chain[n] = change(ev.Chain[n]) } }
	}
	statement := func(change func([]byte) []byte) func(*tpmScene) {
		return func(s *tpmScene) { s.statement = change }
	}
	set16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], v); return b }
	}
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	longer := func(b []byte) []byte { return append(b, 0) }
	other := newKey(t, elliptic.P384())
	if got := honestTPM(t).play(); got != "" {
		t.Fatalf("honest control: %s", got)
	}
	for name, test := range map[string]struct {
		change func(*tpmScene)
		want   Reason
	}{
		"the policy wants none":       {func(s *tpmScene) { s.policy.TPM = false }, ReasonFormat},
		"for a gateway":               {func(s *tpmScene) { s.input.Gateway = true }, ReasonFormat},
		"EK of an unknown maker":      {func(s *tpmScene) { s.endorsed = newMaker(t).endorsements() }, ReasonUnknownRoot},
		"EK of a maker of cards":      {func(s *tpmScene) { s.endorsed.roots[0].builtIn = true }, ReasonUnknownRoot},
		"EK without its usage":        {shape(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), ReasonMalformed},
		"EK for another usage":        {shape(func(c *x509.Certificate) { c.UnknownExtKeyUsage[0] = asn1.ObjectIdentifier{2, 23, 133, 8, 3} }), ReasonMalformed},
		"EK that only signs":          {shape(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), ReasonMalformed},
		"EK is a CA":                  {shape(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), ReasonMalformed},
		"EK with a critical thing":    {shape(critical), ReasonMalformed},
		"EK ran out":                  {shape(func(c *x509.Certificate) { c.NotAfter = judgedAt.Add(-time.Second) }), ReasonExpired},
		"EK of the future":            {shape(func(c *x509.Certificate) { c.NotBefore = judgedAt.Add(time.Hour) }), ReasonNotYetValid},
		"EK on P-521":                 {func(s *tpmScene) { s.ek = newKey(t, elliptic.P521()) }, ReasonAlgorithm},
		"EK altered":                  {part(4, flip), ReasonUnknownRoot},
		"no EK":                       {func(s *tpmScene) { s.evidence = func(ev *Evidence) { ev.Chain = ev.Chain[:4] } }, ReasonMalformed},
		"a stranger behind the EK":    {func(s *tpmScene) { s.evidence = func(ev *Evidence) { ev.Chain = append(ev.Chain, ev.Chain[4]) } }, ReasonMalformed},
		"wrong secret":                {func(s *tpmScene) { s.activation = make([]byte, 32) }, ReasonActivation},
		"secret for another AK":       {func(s *tpmScene) { s.activation = secretFor(s, "token.thumbprint", newKey(t, elliptic.P256())) }, ReasonActivation},
		"secret for another token":    {func(s *tpmScene) { s.activation = secretFor(s, "other.thumbprint", s.ak) }, ReasonActivation},
		"no secret at the verifier's": {func(s *tpmScene) { s.activationKey = nil }, ReasonUnstated},
		"AK that is not restricted":   {akAttribute(0, tpmRestricted), ReasonMalformed},
		"AK that decrypts":            {akAttribute(tpmDecrypt, 0), ReasonMalformed},
		"AK that can leave":           {akAttribute(0, tpmFixedTPM), ReasonMalformed},
		"AK that can move":            {akAttribute(0, tpmFixedParent), ReasonMalformed},
		"AK from elsewhere":           {akAttribute(0, tpmSensitiveDataOrigin), ReasonMalformed},
		"AK without a scheme":         {func(s *tpmScene) { s.akArea.scheme = tpmNull }, ReasonMalformed},
		"AK with SHA-1":               {func(s *tpmScene) { s.akArea.hash = 4 }, ReasonMalformed},
		"AK with another hash":        {func(s *tpmScene) { s.akArea.hash = tpmSHA384 }, ReasonMalformed},
		"imported":                    {attributes(0, tpmSensitiveDataOrigin), ReasonGeneratedElsewhere},
		"can be duplicated":           {attributes(0, tpmFixedTPM), ReasonExtractable},
		"can move to another parent":  {attributes(0, tpmFixedParent), ReasonExtractable},
		"can leave encrypted":         {attributes(tpmEncryptedDuplication, 0), ReasonExtractable},
		"restricted":                  {attributes(tpmRestricted, 0), ReasonRestricted},
		"second imported":             {func(s *tpmScene) { s.secondArea.attributes &^= tpmSensitiveDataOrigin }, ReasonGeneratedElsewhere},
		"second can be duplicated":    {func(s *tpmScene) { s.secondArea.attributes &^= tpmFixedTPM }, ReasonExtractable},
		"no second":                   {func(s *tpmScene) { s.withoutSecond = true }, ReasonUnstated},
		"second is the first":         {func(s *tpmScene) { s.second = s.key }, ReasonSameKey},
		"half a second":               {func(s *tpmScene) { s.evidence = func(ev *Evidence) { ev.KeyManagement = ev.KeyManagement[:2] } }, ReasonMalformed},
		"certified for another nonce": {func(s *tpmScene) { s.nonce = CertificationNonce([]byte("other.thumbprint")) }, ReasonChallengeMismatch},
		"certified for no nonce":      {func(s *tpmScene) { s.nonce = nil }, ReasonChallengeMismatch},
		"challenge signed by another": {func(s *tpmScene) { s.signer = other }, ReasonChallengeMismatch},
		"another key shown":           {func(s *tpmScene) { s.shownKey = area(s.keyArea, &other.PublicKey) }, ReasonKeyMismatch},
		"other attributes shown":      {func(s *tpmScene) { a := s.keyArea; a.attributes |= tpmDecrypt; s.shownKey = area(a, &s.key.PublicKey) }, ReasonKeyMismatch},
		"a request for another key":   {func(s *tpmScene) { s.input.PublicKey = other.Public() }, ReasonKeyMismatch},
		"not made by a TPM":           {statement(set16(0, 0)), ReasonMalformed},
		"a quote":                     {statement(set16(4, 0x8018)), ReasonMalformed},
		"a statement cut off":         {statement(cut), ReasonMalformed},
		"a statement and more":        {statement(longer), ReasonMalformed},
		"a statement changed":         {part(1, flip), ReasonBadSignature},
		"a statement far too long":    {statement(func(b []byte) []byte { return append(b, make([]byte, maxTPM)...) }), ReasonMalformed},
		"a signature by RSA":          {func(s *tpmScene) { s.signature = set16(0, 0x14) }, ReasonMalformed},
		"a signature with SHA-1":      {func(s *tpmScene) { s.signature = set16(2, 4) }, ReasonMalformed},
		"a signature cut off":         {func(s *tpmScene) { s.signature = cut }, ReasonMalformed},
		"a signature and more":        {func(s *tpmScene) { s.signature = longer }, ReasonMalformed},
		"a signature of nothing":      {func(s *tpmScene) { s.signature = func(b []byte) []byte { return append(b[:4], 0, 0, 0, 0) } }, ReasonBadSignature},
		"signed by another AK":        {func(s *tpmScene) { s.signature = func([]byte) []byte { return signedBy(t, other) } }, ReasonBadSignature},
		"an RSA key":                  {part(0, set16(0, 1)), ReasonMalformed},
		"a name with SHA-1":           {part(0, set16(2, 4)), ReasonMalformed},
		"a key on another curve":      {part(0, set16(12, 5)), ReasonMalformed},
		"a point off the curve":       {part(0, flip), ReasonMalformed},
		"a public area cut off":       {part(0, cut), ReasonMalformed},
		"a public area and more":      {part(0, longer), ReasonMalformed},
		"P-384 wanted for both":       {func(s *tpmScene) { s.policy.Algorithms = []string{"P-384"} }, ReasonAlgorithm},
		"a root not listed":           {func(s *tpmScene) { s.policy.Roots = []string{fingerprint(newMaker(t).root)} }, ReasonRoot},
		"FIPS wanted":                 {func(s *tpmScene) { s.policy.RequireFIPS = true }, ReasonUnstated},
	} {
		t.Run(name, func(t *testing.T) {
			s := honestTPM(t)
			test.change(s)
			if got := s.play(); got != test.want {
				t.Errorf("reason %q, want %q", got, test.want)
			}
		})
	}
}

func secretFor(s *tpmScene, keyAuthorization string, ak *ecdsa.PrivateKey) []byte {
	name := must(parseTPMPublic(area(s.akArea, &ak.PublicKey))).name()
	return ActivationSecret(s.activationKey, []byte(keyAuthorization), s.certificate(), name)
}

func signedBy(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	r, s := must2(ecdsa.Sign(rand.Reader, key, make([]byte, 32)))
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tpmECDSA), tpmSHA256)
	return append2B(append2B(b, r.Bytes()), s.Bytes())
}

// Without a challenge, as `valise attest show` has it, nothing says that EK and AK
// belong together, and nothing can be issued.
func TestTPMArchived(t *testing.T) {
	s := honestTPM(t)
	s.withoutSecond, s.policy.KeyManagement = true, KeyManagementOptional
	var kept Evidence
	s.evidence = func(ev *Evidence) { kept = *ev }
	if got := s.play(); got != "" {
		t.Fatalf("honest control: %s", got)
	}
	claims, err := Verify(kept, nil, s.endorsed, judgedAt)
	if err != nil || claims.Activated != Unstated || claims.Fresh != Unstated {
		t.Fatalf("%+v, %v", claims, err)
	}
	if r := s.policy.Appraise(claims, Input{Archived: true, Now: judgedAt}); r.Tier != "" {
		t.Errorf("tier %q", r.Tier)
	}
	if r := s.policy.Appraise(claims, s.input); r.Accepted() || r.Reason() != ReasonUnstated {
		t.Errorf("%s %s", r.Verdict, r.Reason())
	}
}

// The secret depends on everything that it is good for.
func TestActivationSecret(t *testing.T) {
	s := honestTPM(t)
	one, two := s.certificate(), honestTPM(t).certificate()
	seen := map[string]string{}
	for name, secret := range map[string][]byte{
		"as it is":    ActivationSecret([]byte("k"), []byte("a.b"), one, []byte("name")),
		"another key": ActivationSecret([]byte("l"), []byte("a.b"), one, []byte("name")),
		"another ka":  ActivationSecret([]byte("k"), []byte("a.c"), one, []byte("name")),
		"another EK":  ActivationSecret([]byte("k"), []byte("a.b"), two, []byte("name")),
		"another AK":  ActivationSecret([]byte("k"), []byte("a.b"), one, []byte("nama")),
	} {
		if before, ok := seen[string(secret)]; ok || len(secret) != 32 {
			t.Errorf("%s and %s have one secret of %d bytes", name, before, len(secret))
		}
		seen[string(secret)] = name
	}
}

// Credentials can be made for each kind of EK, and for no other.
func TestNewCredential(t *testing.T) {
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	name := append([]byte{0, tpmSHA256}, make([]byte, 32)...)
	for _, test := range []struct {
		key crypto.PublicKey
		ok  bool
	}{
		{newKey(t, elliptic.P256()).Public(), true},
		{newKey(t, elliptic.P384()).Public(), true},
		{rsaKeys()[0].Public(), true},
		{newKey(t, elliptic.P521()).Public(), false},
		{weak.Public(), false},
	} {
		blob, secret, err := NewCredential(&x509.Certificate{PublicKey: test.key}, name, make([]byte, 32))
		if (err == nil) != test.ok {
			t.Errorf("%T: %v", test.key, err)
		}
		if test.ok && (len(blob) == 0 || len(secret) == 0 || len(blob) > maxTPM || len(secret) > maxTPM) {
			t.Errorf("%T: %d and %d bytes", test.key, len(blob), len(secret))
		}
	}
}

// Objects of our own formats go out and come back, and say the same.
func TestOwnObjects(t *testing.T) {
	for name, ev := range map[string]Evidence{
		"tpm":             {Format: FormatTPM, Chain: [][]byte{{1}, {2}, {3}, {4}, {5}, {6}}, KeyManagement: [][]byte{{7}, {8}, {9}}},
		"tpm, one key":    {Format: FormatTPM, Chain: [][]byte{{1}, {2}, {3}, {4}, {5}}},
		"witnessed":       {Format: FormatWitnessed, Chain: [][]byte{{1}}},
		"yubico, as ever": {Format: FormatYubicoPIV, Chain: [][]byte{{1}, {2}}},
	} {
		answer := &Challenge{Algorithm: AlgES384, Signature: []byte{1, 2, 3}}
		if ev.Format == FormatTPM {
			answer.Activation = []byte{9, 9}
		}
		data, err := MarshalAttestationObject(NewAttestationObject(ev, answer))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		o, err := ParseAttestationObject(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back := o.Evidence()
		if back.Hash() != ev.Hash() || !bytes.Equal(o.Challenge(nil).Activation, answer.Activation) {
			t.Errorf("%s: another one came back", name)
		}
	}
	for name, o := range map[string]*AttestationObject{
		"tpm without activation":      {Format: FormatTPM, Algorithm: 1, Signature: []byte{1}, Chain: [][]byte{{1}, {2}, {3}, {4}, {5}}},
		"tpm without EK":              {Format: FormatTPM, Algorithm: 1, Signature: []byte{1}, Activation: []byte{1}, Chain: [][]byte{{1}, {2}, {3}, {4}}},
		"card with activation":        {Algorithm: 1, Signature: []byte{1}, Activation: []byte{1}, Chain: [][]byte{{1}}},
		"witnessed with a second key": {Format: FormatWitnessed, Algorithm: 1, Signature: []byte{1}, Chain: [][]byte{{1}}, KeyManagement: [][]byte{{1}}},
		"witnessed with two":          {Format: FormatWitnessed, Algorithm: 1, Signature: []byte{1}, Chain: [][]byte{{1}, {2}}},
		"an HSM's":                    {Format: FormatMarvell, Algorithm: 1, Signature: []byte{1}, Chain: [][]byte{{1}}},
	} {
		if _, err := MarshalAttestationObject(o); ReasonOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzTPM: hostile structures are refused without a panic, in evidence as a whole.
func FuzzTPM(f *testing.F) {
	s := honestTPM(f)
	var seed Evidence
	s.evidence = func(ev *Evidence) { seed = *ev }
	if got := s.play(); got != "" {
		f.Fatalf("honest control: %s", got)
	}
	f.Add(seed.Chain[0], seed.Chain[1], seed.Chain[2], seed.Chain[3], seed.Chain[4])
	f.Add(seed.Chain[3], seed.Chain[2], seed.Chain[1], seed.Chain[0], seed.Chain[4])
	f.Add([]byte{0, 0x23}, []byte{}, []byte{0, 0x18}, seed.Chain[3], s.maker.root.Raw)
	challenge := &Challenge{KeyAuthorization: s.keyAuthorization, ActivationKey: s.activationKey}
	f.Fuzz(func(t *testing.T, public, statement, signature, ak, ek []byte) {
		parts := [][]byte{public, statement, signature, ak, ek}
		ev := Evidence{Format: FormatTPM, Chain: parts, KeyManagement: parts[:3]}
		if claims, err := Verify(ev, challenge, s.endorsed, judgedAt); err != nil && ReasonOf(err) == "" {
			t.Errorf("no reason: %v", err)
		} else if err == nil && claims.Fresh == True {
			t.Error("fresh without a signature")
		}
		if cert, err := ParseEK(ek); err == nil {
			if _, _, err := NewCredential(cert, ak, make([]byte, 32)); err != nil {
				t.Errorf("an EK without a credential: %v", err)
			}
		}
		if p, err := parseTPMPublic(public); err == nil && !bytes.Equal(p.raw, public) {
			t.Error("another area")
		}
	})
}

// TestWitnessed: possession is all that a witnessed key shows.
func TestWitnessed(t *testing.T) {
	key, other := newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	ka := []byte("token.thumbprint")
	type scene struct {
		ev     Evidence
		signer crypto.Signer
		policy AppraisalPolicy
		input  Input
	}
	honest := func() *scene {
		return &scene{must(WitnessedEvidence(key.Public())), key, AppraisalPolicy{Witnessed: true}, Input{PublicKey: key.Public(), Now: judgedAt}}
	}
	play := func(s *scene) (*Result, error) {
		claims, err := Verify(s.ev, answer(t, s.signer, ka), nil, judgedAt)
		if err != nil {
			return nil, err
		}
		if k := claims.Key; k.Generated != Unstated || k.Extractable != Unstated || k.Slot.Said || k.Firmware.Said || k.Serial.Said || k.PINPolicy.Said || k.Root() != "" {
			t.Errorf("it claims something: %+v", k)
		}
		return s.policy.Appraise(claims, s.input), nil
	}
	if r, err := play(honest()); err != nil || !r.Accepted() || r.Tier != TierWitnessed {
		t.Fatalf("honest control: %+v, %v", r, err)
	}
	for name, test := range map[string]struct {
		change func(*scene)
		want   Reason
	}{
		"the policy wants none":    {func(s *scene) { s.policy.Witnessed = false }, ReasonFormat},
		"a gateway's":              {func(s *scene) { s.input.Gateway = true }, ReasonFormat},
		"archived, not wanted now": {func(s *scene) { s.input.Archived, s.policy.Witnessed = true, false }, ReasonFormat},
		"archived, and accepted":   {func(s *scene) { s.input.Archived = true }, ""}, // and nothing can be issued on it
		"signed by another":        {func(s *scene) { s.signer = other }, ReasonChallengeMismatch},
		"for another key":          {func(s *scene) { s.input.PublicKey = other.Public() }, ReasonKeyMismatch},
		"another algorithm wanted": {func(s *scene) { s.policy.Algorithms = []string{"P-256"} }, ReasonAlgorithm},
		"an RSA key":               {func(s *scene) { s.ev = must(WitnessedEvidence(rsaKeys()[0].Public())) }, ReasonMalformed},
		"not a key":                {func(s *scene) { s.ev.Chain[0] = []byte{1} }, ReasonMalformed},
		"two":                      {func(s *scene) { s.ev.Chain = append(s.ev.Chain, s.ev.Chain[0]) }, ReasonMalformed},
		"with a second key":        {func(s *scene) { s.ev.KeyManagement = s.ev.Chain }, ReasonMalformed},
		"and more":                 {func(s *scene) { s.ev.Chain[0] = append(slices.Clone(s.ev.Chain[0]), 0) }, ReasonMalformed},
	} {
		s := honest()
		test.change(s)
		r, err := play(s)
		got := ReasonOf(err)
		if err == nil {
			got = r.Reason()
		}
		if got != test.want || err == nil && r.Tier != "" {
			t.Errorf("%s: reason %q, want %q", name, got, test.want)
		}
	}
}
