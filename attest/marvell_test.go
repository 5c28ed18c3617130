// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"valise/internal/testenv"
)

// TestMarvellReal verifies what a real Google Cloud HSM gave out, under the real
// roots, at its own time and today.
func TestMarvellReal(t *testing.T) {
	dir := testenv.Vectors(t, "attest", "marvell")
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	statement, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(read("attestation.b64"))))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ParseFile(read("chain.pem"))
	if err != nil {
		t.Fatal(err)
	}
	endorsements, err := Configured(read("roots.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ev := Evidence{Format: FormatMarvell, Chain: append([][]byte{statement}, certs...)}
	sampled := time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, now := range []time.Time{sampled, judgedAt} {
		claims, err := Verify(ev, nil, endorsements, now)
		if err != nil {
			t.Fatal(err)
		}
		k := claims.Key
		got := []string{
			k.Algorithm, k.Generated.String(), k.Extractable.String(), k.NeverExtractable.String(), k.Sensitive.String(),
			k.AlwaysSensitive.String(), k.FIPS.String(), k.Hardware.String(), k.Firmware.String(), claims.Fresh.String(), claims.SerialOf(),
		}
		want := []string{"P-256", "true", "false", "true", "true", "true", "true", "5.3G1953-ICM001225", "unstated", "unstated", "marvell-liquidsecurity:5.3G1953-ICM001225"}
		if !slices.Equal(got, want) {
			t.Errorf("claims %q, want %q", got, want)
		}
		if len(k.Path) != 3 || len(k.OwnerPath) != 2 || k.Root() == k.OwnerPath[1].Fingerprint {
			t.Errorf("paths %v and %v", k.Path, k.OwnerPath)
		}
		policy := &AppraisalPolicy{RequireFIPS: true}
		r := policy.Appraise(claims, Input{PublicKey: k.PublicKey, Gateway: true, Now: now})
		if !r.Accepted() || r.Tier != TierHardware {
			t.Errorf("%s: %+v", r.Verdict, r.Reasons)
		}
		if r := policy.Appraise(claims, Input{PublicKey: k.PublicKey, Now: now}); r.Reason() != ReasonFormat {
			t.Errorf("for a person's device: %s %s", r.Verdict, r.Reason())
		}
	}
	// Altered anywhere, the statement is refused; so is another date, and one root.
	plain, err := unpackMarvell(statement)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(plain); i += 7 {
		changed := slices.Clone(plain)
		changed[i] ^= 1
		if _, err := Verify(Evidence{Format: FormatMarvell, Chain: append([][]byte{changed}, certs...)}, nil, endorsements, sampled); err == nil {
			t.Fatalf("byte %d changed: no error", i)
		}
	}
	if _, err := Verify(ev, nil, endorsements, time.Date(2024, 4, 15, 0, 0, 0, 0, time.UTC)); ReasonOf(err) != ReasonNotYetValid {
		t.Errorf("before its time: %v", err)
	}
	if _, err := Verify(ev, nil, endorsements, time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)); ReasonOf(err) != ReasonExpired {
		t.Errorf("after its time: %v", err)
	}
	for _, root := range endorsements.Roots() {
		one, err := Configured(toPEM(root))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(ev, nil, one, sampled); ReasonOf(err) != ReasonUnknownRoot {
			t.Errorf("only %s: %v", root.Subject, err)
		}
	}
}

// An hsm has everything that stands behind a statement in a test: the maker's and
// the owner's root, a card, a partition, and a key pair's attributes.
type hsmScene struct {
	t                           testing.TB
	makerKey, ownerKey          *rsa.PrivateKey
	cardKey, partitionKey       *rsa.PrivateKey
	makerRoot, ownerRoot        *x509.Certificate
	card, partition             *x509.Certificate // by the maker
	ownersCard, ownersPartition *x509.Certificate
	key                         *ecdsa.PrivateKey
	private, public             map[uint32][]byte
	statement                   func([]byte) []byte // changes it before it is signed
	chain                       [][]byte
	policy                      AppraisalPolicy
	input                       Input
}

// rsaKeys are costly, and the same for all tests.
var rsaKeys = sync.OnceValue(func() (keys [5]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

func honestHSM(t testing.TB) *hsmScene {
	k := rsaKeys()
	s := &hsmScene{t: t, makerKey: k[0], ownerKey: k[1], cardKey: k[2], partitionKey: k[3], key: newKey(t, elliptic.P256())}
	root := pkix.Name{CommonName: "maker's root"}
	s.makerRoot = version1(t, root, root, s.makerKey.Public(), s.makerKey)
	owner := caShape("owner's root")
	s.ownerRoot = sign(t, owner, owner, s.ownerKey.Public(), s.ownerKey)
	s.certify("HSM:5.3X-1, for FIPS mode", "HSM:5.3X-1:PARTN:2, for FIPS mode")
	point, err := s.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	s.private = map[uint32][]byte{
		marvellClass: {3}, marvellKeyType: {3}, marvellPoint: point, marvellLocal: {1}, marvellExtractable: {0},
		marvellNeverExtractable: {1}, marvellSensitive: {1}, marvellAlwaysSensitive: {1}, 3: []byte("label"),
	}
	s.public = map[uint32][]byte{marvellClass: {2}, marvellKeyType: {3}, marvellPoint: point, marvellLocal: {1}, marvellExtractable: {1}}
	s.input = Input{PublicKey: s.key.Public(), Gateway: true, Now: judgedAt}
	return s
}

// certify makes the certificates of card and partition under these names.
func (s *hsmScene) certify(card, partition string) {
	cardName, partitionName := pkix.Name{CommonName: card}, pkix.Name{CommonName: partition}
	s.card = version1(s.t, cardName, s.makerRoot.Subject, s.cardKey.Public(), s.makerKey)
	plain := func(name pkix.Name) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, NotBefore: made, NotAfter: forEver}
	}
	s.partition = sign(s.t, plain(partitionName), s.card, s.partitionKey.Public(), s.cardKey)
	s.ownersCard = sign(s.t, plain(cardName), s.ownerRoot, s.cardKey.Public(), s.ownerKey)
	s.ownersPartition = sign(s.t, plain(partitionName), s.ownerRoot, s.partitionKey.Public(), s.ownerKey)
}

func (s *hsmScene) endorsements() *Endorsements {
	e, err := Configured(toPEM(s.makerRoot, s.ownerRoot))
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *hsmScene) evidence() Evidence {
	chain := s.chain
	if chain == nil {
		chain = [][]byte{s.ownersCard.Raw, s.partition.Raw, s.ownersPartition.Raw, s.card.Raw}
	}
	return Evidence{Format: FormatMarvell, Chain: append([][]byte{s.signed()}, chain...)}
}

// signed returns the statement.
func (s *hsmScene) signed() []byte {
	be := binary.BigEndian
	objects := [2][]byte{marvellObjectOf(7, s.public), marvellObjectOf(9, s.private)}
	size := marvellInfo + len(objects[0]) + len(objects[1])
	var b []byte
	for _, n := range []int{0, 3, marvellHeader + size + marvellSignature, size, 0, 7, 0, 9, 1<<16 | 3, marvellInfo<<16 | marvellInfo + len(objects[0])} {
		b = be.AppendUint32(b, uint32(n))
	}
	b = append(append(b, objects[0]...), objects[1]...)
	if s.statement != nil {
		b = s.statement(b)
	}
	sum := sha256.Sum256(b)
	signature, err := rsa.SignPKCS1v15(nil, s.partitionKey, crypto.SHA256, sum[:])
	if err != nil {
		s.t.Fatal(err)
	}
	return append(b, signature...)
}

func marvellObjectOf(handle uint32, attributes map[uint32][]byte) []byte {
	be := binary.BigEndian
	var body []byte
	kinds := make([]uint32, 0, len(attributes))
	for kind := range attributes {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		body = append(be.AppendUint32(be.AppendUint32(body, kind), uint32(len(attributes[kind]))), attributes[kind]...)
	}
	head := be.AppendUint32(be.AppendUint32(be.AppendUint32(nil, handle), uint32(len(attributes))), uint32(len(body)))
	return append(head, body...)
}

// version1 makes an X.509 certificate of version 1, which crypto/x509 does not.
func version1(t testing.TB, subject, issuer pkix.Name, key crypto.PublicKey, signer *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
	tbs := must(asn1.Marshal(struct {
		Serial    *big.Int
		Algorithm pkix.AlgorithmIdentifier
		Issuer    pkix.RDNSequence
		Validity  struct{ NotBefore, NotAfter time.Time }
		Subject   pkix.RDNSequence
		Key       asn1.RawValue
	}{
		big.NewInt(1), algorithm, issuer.ToRDNSequence(),
		struct{ NotBefore, NotAfter time.Time }{made.Add(-time.Hour), made.Add(24 * time.Hour)}, // and out of date since
		subject.ToRDNSequence(),
		asn1.RawValue{FullBytes: spki},
	}))
	sum := sha256.Sum256(tbs)
	signature := must(rsa.SignPKCS1v15(nil, signer, crypto.SHA256, sum[:]))
	der := must(asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}}))
	cert, err := x509.ParseCertificate(der)
	if err != nil || cert.Version != 1 {
		t.Fatalf("version %d, %v", cert.Version, err)
	}
	return cert
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestMarvellRefuses changes one thing at a time; the honest HSM is accepted.
func TestMarvellRefuses(t *testing.T) {
	set := func(kind uint32, value ...byte) func(*hsmScene) {
		return func(s *hsmScene) { s.private[kind] = value }
	}
	leave := func(kind uint32) func(*hsmScene) { return func(s *hsmScene) { delete(s.private, kind) } }
	header := func(at int, value byte) func(*hsmScene) {
		return func(s *hsmScene) { s.statement = func(b []byte) []byte { b[at] = value; return b } }
	}
	without := func(n int) func(*hsmScene) {
		return func(s *hsmScene) {
			s.chain = slices.Delete([][]byte{s.ownersCard.Raw, s.partition.Raw, s.ownersPartition.Raw, s.card.Raw}, n, n+1)
		}
	}
	other := rsaKeys()[4]
	honest := honestHSM(t)
	if got := playHSM(honest, honest.endorsements()); got != "" {
		t.Fatalf("honest control: %s", got)
	}
	for name, test := range map[string]struct {
		change func(*hsmScene)
		want   Reason // of an Error, or of the appraisal
	}{
		"extractable":               {set(marvellExtractable, 1), ReasonExtractable},
		"extractable unstated":      {leave(marvellExtractable), ReasonUnstated},
		"was extractable":           {set(marvellNeverExtractable, 0), ReasonExtractable},
		"was extractable, unstated": {leave(marvellNeverExtractable), ReasonUnstated},
		"imported":                  {set(marvellLocal, 0), ReasonGeneratedElsewhere},
		"origin unstated":           {leave(marvellLocal), ReasonUnstated},
		"not sensitive":             {set(marvellSensitive, 0), ReasonSensitive},
		"was not sensitive":         {set(marvellAlwaysSensitive, 0), ReasonSensitive},
		"sensitive unstated":        {leave(marvellAlwaysSensitive), ReasonUnstated},
		"a flag of 2":               {set(marvellExtractable, 2), ReasonMalformed},
		"a flag of two bytes":       {set(marvellExtractable, 0, 0), ReasonMalformed},
		"two public keys":           {set(marvellClass, 2), ReasonMalformed},
		"a secret key":              {set(marvellClass, 4), ReasonMalformed},
		"no class":                  {leave(marvellClass), ReasonMalformed},
		"an RSA key":                {func(s *hsmScene) { s.private[marvellKeyType], s.public[marvellKeyType] = []byte{0}, []byte{0} }, ReasonMalformed},
		"halves of two keys":        {func(s *hsmScene) { s.private[marvellPoint] = must(newKey(t, elliptic.P256()).PublicKey.Bytes()) }, ReasonMalformed},
		"no point":                  {func(s *hsmScene) { delete(s.private, marvellPoint); delete(s.public, marvellPoint) }, ReasonMalformed},
		"a point off the curve": {func(s *hsmScene) {
			s.public[marvellPoint] = append([]byte{4}, make([]byte, 64)...)
			s.private[marvellPoint] = s.public[marvellPoint]
		}, ReasonMalformed},
		"a request for another key": {func(s *hsmScene) { s.input.PublicKey = newKey(t, elliptic.P256()).Public() }, ReasonKeyMismatch},
		"an error code":             {header(3, 1), ReasonUnknownFormat},
		"without attributes":        {header(7, 2), ReasonUnknownFormat},
		"another version":           {header(33, 2), ReasonUnknownFormat},
		"another length":            {header(11, 0xff), ReasonMalformed},
		"another size":              {header(15, 0xff), ReasonMalformed},
		"another handle":            {header(23, 8), ReasonMalformed},
		"another offset":            {header(39, 8), ReasonMalformed},
		"an attribute cut off":      {header(marvellHeader+marvellInfo+7, 99), ReasonMalformed},
		"an attribute not counted":  {header(marvellHeader+marvellInfo+7, 4), ReasonMalformed},
		"signed by another key":     {func(s *hsmScene) { s.partitionKey = other }, ReasonBadSignature},
		"owner's card lacks":        {without(0), ReasonUnknownRoot},
		"maker's partition lacks":   {without(1), ReasonUnknownRoot},
		"owner's partition lacks":   {without(2), ReasonUnknownRoot},
		"maker's card lacks":        {without(3), ReasonUnknownRoot},
		"owner knows another card": {func(s *hsmScene) {
			s.cardKey = other
			was := *s
			s.certify("HSM:5.3X-1, for FIPS mode", "HSM:5.3X-1:PARTN:2, for FIPS mode")
			s.ownersCard = was.ownersCard
		}, ReasonUnknownRoot},
		"owner knows another partition": {func(s *hsmScene) {
			s.partitionKey = other
			was := *s
			s.certify("HSM:5.3X-1, for FIPS mode", "HSM:5.3X-1:PARTN:2, for FIPS mode")
			s.ownersPartition = was.ownersPartition
		}, ReasonUnknownRoot},
		"another owner of that name": {func(s *hsmScene) {
			s.ownerKey, s.ownerRoot = other, sign(t, caShape("owner's root"), caShape("owner's root"), other.Public(), other)
			s.certify("HSM:5.3X-1, for FIPS mode", "HSM:5.3X-1:PARTN:2, for FIPS mode")
		}, ReasonUnknownRoot},
		"the maker is the owner": {func(s *hsmScene) {
			s.makerRoot = s.ownerRoot
			s.makerKey = s.ownerKey
			s.certify("HSM:5.3X-1, for FIPS mode", "HSM:5.3X-1:PARTN:2, for FIPS mode")
		}, ReasonUnknownRoot},
		"names that do not fit": {func(s *hsmScene) { s.certify("HSM:5.3X-2, for FIPS mode", "HSM:5.3X-1:PARTN:2, for FIPS mode") }, ReasonMalformed},
		"FIPS wanted": {func(s *hsmScene) {
			s.policy.RequireFIPS = true
			s.certify("HSM:5.3X-1", "HSM:5.3X-1:PARTN:2")
		}, ReasonCertification},
		"owner's root not listed":             {func(s *hsmScene) { s.policy.Roots = []string{fingerprint(s.makerRoot)} }, ReasonRoot},
		"maker's root not listed":             {func(s *hsmScene) { s.policy.Roots = []string{fingerprint(s.ownerRoot)} }, ReasonRoot},
		"an answered challenge is no gateway": {func(s *hsmScene) { s.input.Gateway = false }, ReasonFormat},
	} {
		t.Run(name, func(t *testing.T) {
			s := honestHSM(t)
			endorsed := s.endorsements()
			test.change(s)
			if name == "the maker is the owner" {
				endorsed = honest.endorsements()
				endorsed.roots = append(endorsed.roots, endorsedOf(s.ownerRoot))
			}
			if got := playHSM(s, endorsed); got != test.want {
				t.Errorf("reason %q, want %q", got, test.want)
			}
		})
	}
}

func endorsedOf(c *x509.Certificate) endorsed { return endorsed{cert: c} }

// playHSM returns the reason of a refusal, or "".
func playHSM(s *hsmScene, e *Endorsements) Reason {
	claims, err := Verify(s.evidence(), nil, e, judgedAt)
	if err != nil {
		return ReasonOf(err)
	}
	r := s.policy.Appraise(claims, s.input)
	if r.Accepted() != (r.Tier == TierHardware) {
		s.t.Errorf("%s, tier %q", r.Verdict, r.Tier)
	}
	return r.Reason()
}

// Packed and plain, with copies of the roots or without: the same claims. What
// follows the packed statement, or swells beyond all measure, is refused.
func TestMarvellPacked(t *testing.T) {
	s := honestHSM(t)
	pack := func(data []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(data); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	ev := s.evidence()
	plain := ev.Chain[0]
	ev.Chain[0] = pack(plain)
	ev.Chain = append(ev.Chain, s.makerRoot.Raw, s.ownerRoot.Raw)
	if _, err := Verify(ev, nil, s.endorsements(), judgedAt); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"something behind": append(pack(plain), 0), "two members": append(pack(plain), pack(nil)...),
		"a bomb": pack(make([]byte, 10<<20)), "cut off": pack(plain)[:100], "nothing in it": pack(nil),
		"too large": make([]byte, maxMarvell+1),
	} {
		ev.Chain[0] = data
		if _, err := Verify(ev, nil, s.endorsements(), judgedAt); ReasonOf(err) != ReasonMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A root of version 1 endorses that vendor's cards and nothing else.
func TestOldRootEndorsesNothingElse(t *testing.T) {
	k := rsaKeys()
	name := pkix.Name{CommonName: "old"}
	old := version1(t, name, name, k[0].Public(), k[0])
	e, err := Configured(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Raw}))
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{t, old, k[0]}
	c := m.card()
	_, err = Verify(Evidence{Format: FormatYubicoPIV, Chain: [][]byte{c.statement("9a", newKey(t, elliptic.P256()).Public()), c.cert.Raw}}, nil, e, judgedAt)
	if ReasonOf(err) != ReasonUnknownRoot {
		t.Errorf("error %v, want %s", err, ReasonUnknownRoot)
	}
}

// FuzzMarvell: hostile statements are refused without a panic; one that parses
// has the parts that it announces.
func FuzzMarvell(f *testing.F) {
	s := honestHSM(f)
	plain := s.signed()
	f.Add(plain)
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(plain)
	_ = w.Close()
	f.Add(b.Bytes())
	f.Add(plain[:100])
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := parseMarvell(data)
		if err != nil {
			if ReasonOf(err) == "" {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		if len(st.signature) != marvellSignature || st.private == nil || st.public == nil {
			t.Error("parts are missing")
		}
		if k, err := st.claims(); err == nil && k.PublicKey == nil {
			t.Error("no key")
		}
	})
}
