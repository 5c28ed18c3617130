// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// An honest chain passes on both curves, with the root and without, and says
// what its profile said.
func TestDevice(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		a := newAuthority(t, "interieur.example", curve)
		key := newKey(t, curve)
		profile := a.deviceProfile(key.Public())
		profile.Clearance = clearance(t)
		template, err := profile.Template()
		if err != nil {
			t.Fatal(err)
		}
		chain := a.chain(template)
		for _, given := range [][][]byte{chain, append(slices.Clone(chain), a.root.Raw)} {
			d, err := a.trust().Device(given, noon)
			if err != nil {
				t.Fatal(err)
			}
			id, err := DeviceIDOf(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if d.ID != id || d.Address != profile.Address || d.Tier != TierHardware ||
				d.Appraisal != (Appraisal{TierHardware, [32]byte{1}, [32]byte{2}}) ||
				!d.Clearance.PolicyID.Equal(profile.Clearance.PolicyID) || len(d.Chain) != len(given) {
				t.Errorf("device %+v", d)
			}
		}
	}
}

// TestDeviceRefuses sets one property off at a time, beside an honest control.
func TestDeviceRefuses(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	other := newAuthority(t, "interieur.example", elliptic.P256()) // same names, other keys
	key := newKey(t, elliptic.P256())
	honest := a.device(key.Public())
	issued := func(changes ...alter) [][]byte { return a.device(key.Public(), changes...) }
	mail := func(addresses ...string) [][]byte {
		return issued(func(c *x509.Certificate) { c.EmailAddresses = addresses })
	}
	with := func(id asn1.ObjectIdentifier, critical bool, value []byte) [][]byte {
		return issued(func(c *x509.Certificate) {
			c.ExtraExtensions = slices.DeleteFunc(c.ExtraExtensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
			if value != nil {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
			}
		})
	}
	self, err := a.deviceProfile(key.Public()).Template()
	if err != nil {
		t.Fatal(err)
	}
	selfSigned := sign(t, self, self, key)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	strange := func(public any) [][]byte {
		return issued(func(c *x509.Certificate) { c.PublicKey = public })
	}
	// A device that plays the issuer.
	playing := *a
	playing.issuer, playing.issuerKey = parse(t, honest[0]), key
	under := func(c *testAuthority) [][]byte { return c.device(key.Public()) }
	// A second issuer below the first.
	deep := *a
	deep.issuerKey = newKey(t, elliptic.P256())
	template, err := IssuerTemplate(a.profile(deep.issuerKey, 3))
	if err != nil {
		t.Fatal(err)
	}
	deep.issuer = sign(t, template, a.issuer, a.issuerKey)
	san, err := deviceAltName(a.deviceProfile(key.Public()).Address, mustID(t, key.Public()))
	if err != nil {
		t.Fatal(err)
	}

	for name, test := range map[string]struct {
		chain [][]byte
		want  Reason
	}{
		"empty":                     {nil, ReasonChainLength},
		"too long":                  {slices.Concat(honest, honest, honest[:1]), ReasonChainLength},
		"oversized":                 {[][]byte{make([]byte, MaxCertificateSize+1), a.issuer.Raw}, ReasonMalformed},
		"no DER":                    {[][]byte{[]byte("hello"), a.issuer.Raw}, ReasonMalformed},
		"bytes behind":              {[][]byte{append(slices.Clone(honest[0]), 0), a.issuer.Raw}, ReasonMalformed},
		"issuer first":              {[][]byte{honest[1], honest[0]}, ReasonChainOrder},
		"issuer left out":           {honest[:1], ReasonUnknownAuthority},
		"self-signed":               {[][]byte{selfSigned.Raw}, ReasonSelfSigned},
		"another authority":         {other.device(key.Public()), ReasonUnknownAuthority},
		"another authority's root":  {append(other.device(key.Public()), other.root.Raw), ReasonUnknownAuthority},
		"another's issuer":          {[][]byte{honest[0], other.issuer.Raw}, ReasonUnknownAuthority},
		"other leaf, our issuer":    {[][]byte{other.device(key.Public())[0], a.issuer.Raw}, ReasonBadSignature},
		"altered leaf":              {[][]byte{flip(honest[0]), honest[1]}, ReasonBadSignature},
		"altered issuer":            {[][]byte{honest[0], flip(honest[1])}, ReasonBadSignature},
		"RSA device":                {strange(rsaKey.Public()), ReasonAlgorithm},
		"P-521 device":              {strange(newKey(t, elliptic.P521()).Public()), ReasonAlgorithm},
		"hash of another curve":     {issued(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA512 }), ReasonAlgorithm},
		"issuer is no CA":           {under(a.reissue(func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLenZero = false })), ReasonNotCA},
		"issuer without constraint": {under(a.reissue(func(c *x509.Certificate) { c.BasicConstraintsValid = false; c.MaxPathLenZero = false })), ReasonNotCA},
		"issuer may not sign":       {under(a.reissue(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })), ReasonNotCA},
		"issuer with a constraint": {under(a.reissue(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical = true
			c.PermittedEmailAddresses = []string{"interieur.example"}
		})), ReasonCritical},
		"a device as issuer":  {append(playing.device(key.Public()), a.issuer.Raw), ReasonNotCA},
		"issuer below issuer": {append(deep.device(key.Public()), a.issuer.Raw), ReasonPathLength},
		"critical extension":  {with(asn1.ObjectIdentifier{1, 2, 3}, true, []byte{5, 0}), ReasonCritical},
		"the issuer itself":   {[][]byte{a.issuer.Raw, a.root.Raw}, ReasonWrongUsage},
		"a gateway":           {a.gateway("gw.interieur.example", nil), ReasonWrongUsage},
		"more usages":         {issued(func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }), ReasonWrongUsage},
		"without our usage":   {issued(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), ReasonWrongUsage},
		"both our usages":     {issued(func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, OIDGatewayUsage) }), ReasonWrongUsage},
		"key agreement":       {issued(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyAgreement }), ReasonWrongUsage},
		"no address":          {mail(), ReasonNoAddress},
		"address in capitals": {mail("Alice@interieur.example"), ReasonNoAddress},
		"no domain":           {mail("alice"), ReasonNoAddress},
		"another domain":      {mail("alice@other.example"), ReasonWrongDomain},
		"a domain below":      {mail("alice@sub.interieur.example"), ReasonWrongDomain},
		"two addresses":       {mail("alice@interieur.example", "bob@interieur.example"), ReasonMalformed},
		"another device":      {issued(func(c *x509.Certificate) { c.URIs = []*url.URL{DeviceID{1}.URL()} }), ReasonWrongDevice},
		"no device":           {issued(func(c *x509.Certificate) { c.URIs = nil }), ReasonWrongDevice},
		"two devices":         {issued(func(c *x509.Certificate) { c.URIs = append(c.URIs, DeviceID{1}.URL()) }), ReasonWrongDevice},
		"a DNS name besides":  {issued(func(c *x509.Certificate) { c.DNSNames = []string{"interieur.example"} }), ReasonMalformed},
		"names not critical":  {with(oidSubjectAltName, false, san), ReasonMalformed},
		"no appraisal":        {with(OIDAppraisal, false, nil), ReasonNoAppraisal},
		"malformed appraisal": {with(OIDAppraisal, false, []byte{0x30, 0}), ReasonNoAppraisal},
		"malformed clearance": {with(oidDirectoryAttributes, false, []byte{0x30, 0}), ReasonMalformed},
		"two clearances":      {with(oidDirectoryAttributes, false, twoClearances(t)), ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			trust := a.trust()
			if _, err := trust.Device(honest, noon); err != nil {
				t.Fatalf("honest control: %v", err)
			}
			// One knows the issuers already, the other has seen nothing.
			for _, trust := range []*Trust{trust, a.trust()} {
				d, err := trust.Device(test.chain, noon)
				if d != nil || ReasonOf(err) != test.want {
					t.Errorf("error %v, want %s", err, test.want)
				}
			}
			certs, ok := parsed(test.chain)
			if !ok {
				return // crypto/tls would not have handed it on
			}
			for _, trust := range []*Trust{trust, a.trust()} {
				d, err := trust.DeviceOf(certs, noon)
				if d != nil || ReasonOf(err) != test.want {
					t.Errorf("parsed before: error %v, want %s", err, test.want)
				}
			}
		})
	}
}

// parsed does what crypto/tls does with a chain.
func parsed(chain [][]byte) (certs []*x509.Certificate, ok bool) {
	for _, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, false
		}
		certs = append(certs, cert)
	}
	return certs, true
}

// A chain that comes parsed is judged like any other, and is not in memory twice.
func TestDeviceOf(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	chain := a.device(newKey(t, elliptic.P256()).Public())
	knowing := a.trust()
	if _, err := knowing.Device(a.device(newKey(t, elliptic.P256()).Public()), noon); err != nil {
		t.Fatal(err)
	}
	for _, trust := range []*Trust{a.trust(), knowing} { // one of them knows the issuers
		certs, _ := parsed(chain)
		want, err := a.trust().Device(chain, noon)
		if err != nil {
			t.Fatal(err)
		}
		d, err := trust.DeviceOf(certs, noon)
		if err != nil || d.ID != want.ID || d.Address != want.Address || d.Appraisal != want.Appraisal || !slices.EqualFunc(d.Chain, chain, bytes.Equal) {
			t.Fatalf("%+v, %v, want %+v", d, err, want)
		}
		if d.Leaf != certs[0] || &d.Chain[0][0] != &certs[0].Raw[0] {
			t.Error("the certificate is there twice")
		}
		if _, err := trust.DeviceOf(certs, noon.AddDate(1, 0, 0)); ReasonOf(err) != ReasonExpired {
			t.Errorf("a year later: %v", err)
		}
		// What the caller does with its bytes later does not matter.
		mine := [][]byte{slices.Clone(chain[0]), slices.Clone(chain[1])}
		if d, err = a.trust().Device(mine, noon); err != nil {
			t.Fatal(err)
		}
		clear(mine[0])
		if !bytes.Equal(d.Leaf.Raw, chain[0]) || !bytes.Equal(d.Chain[0], chain[0]) {
			t.Error("the caller's bytes were kept")
		}
	}
}

// Issuers are remembered when a chain was in order, and only then; what they issued
// shares their certificates.
func TestIssuersAreRemembered(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	trust := a.trust()
	chain := a.device(newKey(t, elliptic.P256()).Public())
	if _, err := trust.Device([][]byte{flip(chain[0]), chain[1]}, noon); err == nil || len(trust.issuers) != 0 {
		t.Fatalf("a leaf that was altered: %v, and %d issuers are remembered", err, len(trust.issuers))
	}
	first, err := trust.Device(chain, noon)
	if err != nil || len(trust.issuers) != 1 {
		t.Fatalf("%v, and %d issuers are remembered", err, len(trust.issuers))
	}
	second, err := trust.Device(a.device(newKey(t, elliptic.P256()).Public()), noon)
	if err != nil || len(second.Above) != 2 || second.Above[0] != first.Above[0] || second.Leaf == first.Leaf {
		t.Errorf("the second device: %v, %d above it", err, len(second.Above))
	}
}

// BenchmarkArrivingDevice is a chain that was never seen, of a known issuer.
func BenchmarkArrivingDevice(b *testing.B) {
	a := newAuthority(b, "interieur.example", elliptic.P256())
	var chains [][][]byte
	for range 64 {
		chains = append(chains, a.device(newKey(b, elliptic.P256()).Public()))
	}
	trust := a.trust()
	for i := 0; b.Loop(); i++ {
		if i%len(chains) == 0 {
			clear(trust.cache)
		}
		if _, err := trust.Device(chains[i%len(chains)], noon); err != nil {
			b.Fatal(err)
		}
	}
}

// Expiry is judged at the caller's time, also for a chain that the cache
// knows, and for every certificate of it.
func TestDeviceValidity(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	chain := a.device(newKey(t, elliptic.P256()).Public())
	short := a.reissue(func(c *x509.Certificate) { c.NotAfter = noon })
	belowShort := short.device(newKey(t, elliptic.P256()).Public())
	trust := a.trust()
	for _, test := range []struct {
		chain [][]byte
		at    time.Time
		want  Reason
	}{
		{chain, noon, ""},
		{chain, from, ""},
		{chain, to, ""},
		{chain, from.Add(-time.Second), ReasonNotYetValid},
		{chain, to.Add(time.Second), ReasonExpired},
		{chain, noon, ""},
		{belowShort, noon, ""},
		{belowShort, noon.Add(time.Second), ReasonExpired},
		{chain, from.AddDate(20, 0, 0), ReasonExpired},
	} {
		if _, err := trust.Device(test.chain, test.at); ReasonOf(err) != test.want {
			t.Errorf("at %v: error %v, want %q", test.at, err, test.want)
		}
	}
	// A member's chain is judged as of its leaf's beginning.
	at, err := IssuedAt(chain)
	if err != nil || !at.Equal(from) {
		t.Errorf("IssuedAt: %v, %v", at, err)
	}
	if _, err := IssuedAt(nil); ReasonOf(err) != ReasonChainLength {
		t.Errorf("IssuedAt of nothing: %v", err)
	}
}

// The cache answers for a chain only if every byte of it is the same, forgets
// when it is full, and is safe for concurrent use.
func TestDeviceCache(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P256())
	trust := a.trust()
	chain := a.device(newKey(t, elliptic.P256()).Public())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := trust.Device(chain, noon); err != nil {
					t.Error(err)
				}
				if _, err := trust.Device([][]byte{flip(chain[0]), chain[1]}, noon); ReasonOf(err) != ReasonBadSignature {
					t.Errorf("altered: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if len(trust.cache) != 1 {
		t.Errorf("%d chains remembered, want 1: refused ones are not kept", len(trust.cache))
	}
	// Neither side's slices are shared with the caller's.
	given := [][]byte{slices.Clone(chain[0]), slices.Clone(chain[1])}
	d, err := a.trust().Device(given, noon)
	if err != nil {
		t.Fatal(err)
	}
	given[0][0] ^= 1
	if !bytes.Equal(d.Chain[0], chain[0]) {
		t.Error("the device shares its caller's bytes")
	}
	for i := range maxCached {
		trust.cache[[32]byte{1, byte(i), byte(i >> 8)}] = new(verified)
	}
	if _, err := trust.Device(a.device(newKey(t, elliptic.P256()).Public()), noon); err != nil || len(trust.cache) > maxCached {
		t.Errorf("full cache: %d chains, %v", len(trust.cache), err)
	}
}

// With two rows, each authority speaks for its own domain only.
func TestTwoAuthorities(t *testing.T) {
	a, b := newAuthority(t, "a.example", elliptic.P256()), newAuthority(t, "b.example", elliptic.P256())
	trust := NewTrust(Authority{"a.example", []*x509.Certificate{a.root}}, Authority{"b.example", []*x509.Certificate{b.root}})
	key := newKey(t, elliptic.P256())
	for _, honest := range []*testAuthority{a, b} {
		if _, err := trust.Device(honest.device(key.Public()), noon); err != nil {
			t.Errorf("%s: %v", honest.domain, err)
		}
	}
	posing := b.device(key.Public(), func(c *x509.Certificate) { c.EmailAddresses = []string{"alice@a.example"} })
	if _, err := trust.Device(posing, noon); ReasonOf(err) != ReasonWrongDomain {
		t.Errorf("b certifying a's address: %v", err)
	}
	gateway := b.gateway("gw.a.example", nil)
	if _, err := trust.For("b.example").Gateway(gateway, "gw.a.example", noon); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	if _, err := trust.For("a.example").Gateway(gateway, "gw.a.example", noon); ReasonOf(err) != ReasonUnknownAuthority {
		t.Errorf("b certifying a's gateway: %v", err)
	}
	if _, err := NewTrust().Device(a.device(key.Public()), noon); ReasonOf(err) != ReasonUnknownAuthority {
		t.Errorf("an empty table: %v", err)
	}
}

func TestGateway(t *testing.T) {
	a := newAuthority(t, "interieur.example", elliptic.P384())
	trust := a.trust()
	chain := a.gateway("gw.interieur.example", []string{"192.0.2.7", "2001:db8::7", "localhost"})
	for _, name := range []string{"gw.interieur.example", "192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "localhost"} {
		if leaf, err := trust.Gateway(chain, name, noon); err != nil || leaf == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	device := a.device(newKey(t, elliptic.P256()).Public())
	names := make([]string, MaxGatewayNames+1)
	for i := range names {
		names[i] = "gw" + big.NewInt(int64(i)).String() + ".example"
	}
	for name, test := range map[string]struct {
		chain [][]byte
		name  string
		at    time.Time
		want  Reason
	}{
		"another name":     {chain, "other.interieur.example", noon, ReasonWrongName},
		"another address":  {chain, "192.0.2.8", noon, ReasonWrongName},
		"no name":          {chain, "", noon, ReasonWrongName},
		"a device":         {device, "gw.interieur.example", noon, ReasonWrongUsage},
		"expired":          {chain, "localhost", to.Add(time.Second), ReasonExpired},
		"not yet":          {chain, "localhost", from.Add(-time.Second), ReasonNotYetValid},
		"with an address":  {a.gateway("localhost", nil, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.example"} }), "localhost", noon, ReasonMalformed},
		"too many names":   {a.gateway("localhost", nil, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, names...) }), "localhost", noon, ReasonMalformed},
		"no appraisal":     {a.gateway("localhost", nil, func(c *x509.Certificate) { c.ExtraExtensions = nil }), "localhost", noon, ReasonNoAppraisal},
		"another's issuer": {newAuthority(t, "interieur.example", elliptic.P384()).gateway("localhost", nil), "localhost", noon, ReasonUnknownAuthority},
		"wildcard":         {a.gateway("localhost", nil, func(c *x509.Certificate) { c.DNSNames = []string{"*.interieur.example"} }), "gw.interieur.example", noon, ReasonWrongName},
	} {
		if _, err := trust.Gateway(test.chain, test.name, test.at); ReasonOf(err) != test.want {
			t.Errorf("%s: error %v, want %s", name, err, test.want)
		}
	}
}

// What the chain check accepts, the standard library accepts too.
func TestAgainstX509Verify(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		a := newAuthority(t, "interieur.example", curve)
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(a.root)
		between.AddCert(a.issuer)
		leaf := parse(t, a.device(newKey(t, curve).Public())[0])
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("device: %v", err)
		}
		gateway := parse(t, a.gateway("192.0.2.7", []string{"gw.example"})[0])
		if _, err := gateway.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: noon, DNSName: "gw.example"}); err != nil {
			t.Errorf("gateway: %v", err)
		}
		if !gateway.IPAddresses[0].Equal(net.IPv4(192, 0, 2, 7)) {
			t.Errorf("addresses %v", gateway.IPAddresses)
		}
	}
}

// Any bytes as a chain give a device or a reason, never both nor neither.
func FuzzDevice(f *testing.F) {
	a := newAuthority(f, "interieur.example", elliptic.P256())
	chain := a.device(newKey(f, elliptic.P256()).Public())
	f.Add(chain[0], chain[1])
	f.Add(a.gateway("localhost", nil)[0], a.root.Raw)
	trust := a.trust()
	f.Fuzz(func(t *testing.T, leaf, issuer []byte) {
		for _, chain := range [][][]byte{{leaf, issuer}, {leaf}} {
			d, err := trust.Device(chain, noon)
			if (d == nil) != (ReasonOf(err) != "") {
				t.Errorf("device %v, error %v", d, err)
			}
			if cert, err := trust.Gateway(chain, "localhost", noon); (cert == nil) != (ReasonOf(err) != "") {
				t.Errorf("gateway %v, error %v", cert, err)
			}
		}
	})
}

func mustID(t testing.TB, key any) DeviceID {
	t.Helper()
	id, err := DeviceIDOf(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// twoClearances is a subjectDirectoryAttributes extension that would leave
// open which of two clearances governs.
func twoClearances(t testing.TB) []byte {
	t.Helper()
	one, err := clearance(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	type attribute struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
	der, err := asn1.Marshal([]attribute{{oidClearance, []asn1.RawValue{{FullBytes: one}, {FullBytes: one}}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func clearance(t testing.TB) *Clearance {
	t.Helper()
	list, err := NewClassList(1, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	return &Clearance{
		PolicyID:  asn1.ObjectIdentifier{1, 3, 26, 1, 3, 1},
		ClassList: list,
		Categories: []SecurityCategory{
			{Type: asn1.ObjectIdentifier{1, 3, 26, 1, 4, 1}, Value: []byte{0x02, 1, 5}},
			{Type: asn1.ObjectIdentifier{1, 3, 26, 1, 4, 2}, Value: []byte{0x0c, 2, 'a', 'b'}},
		},
	}
}
