// SPDX-License-Identifier: Apache-2.0

package judges

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"valise/internal/testcard"
	"valise/internal/testenv"
)

// pivGo is the module under whose hardware tests the card is put.
const pivGo = "github.com/go-piv/piv-go/v2/piv"

// Of piv-go v2.6.0's tests, one demands a certificate chain to Yubico's root,
// which no virtual card can have.
const (
	yubicosRoot = "TestYubiKeyAttestation"
	suitePasses = 144 // tests and subtests, without that one
)

// suite compiles piv-go's test binary, from the module cache as it is.
func suite(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "piv.test")
	cmd := exec.Command("go", "test", "-c", "-o", binary, pivGo)
	cmd.Dir = testenv.Root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile the tests of piv-go: %v\n%s", err, out)
	}
	return binary
}

// runSuite runs it on the card. rsa1024min=0 is for its own RSA key of 512
// bits, with which it tests that such a key is refused.
func runSuite(t *testing.T, card *testenv.CardReader, binary string, args ...string) (string, error) {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	t.Setenv("PIV_BIO_TESTS", "1")
	guard(t, card)
	return run(t, card, binary, append([]string{"-test.v", "-wipe-yubikey"}, args...)...)
}

var verdict = regexp.MustCompile(`(?m)^\s*--- (PASS|FAIL|SKIP): (\S+)`)

// TestPivGoSuite runs all of piv-go's hardware tests, those for fingerprints
// and firmware 5.7 too, on a card that can do it all. None may fail and none
// may be skipped.
func TestPivGoSuite(t *testing.T) {
	card := testenv.Reader(t, testcard.Config{Firmware: testcard.Version{Major: 5, Minor: 7, Patch: 4}, Bio: true})[0]
	binary := suite(t)
	out, err := runSuite(t, card, binary, "-test.skip", "^"+yubicosRoot+"$")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	listed := strings.Fields(must(t, card, binary, "-test.list", "."))
	passed := 0
	for _, m := range verdict.FindAllStringSubmatch(out, -1) {
		if m[1] != "PASS" {
			t.Errorf("%s: %s", m[2], m[1])
			continue
		}
		passed++
		listed = slices.DeleteFunc(listed, func(name string) bool { return name == m[2] })
	}
	if passed != suitePasses {
		t.Errorf("%d tests passed, %d are expected: has piv-go changed?", passed, suitePasses)
	}
	if !slices.Equal(listed, []string{yubicosRoot}) {
		t.Errorf("tests without a verdict: %v, expected only %s", listed, yubicosRoot)
	}
}

// TestPivGoSuiteOldFirmware runs the suite on the default card. What needs
// newer firmware says so; X25519 is the one such test that does not ask.
func TestPivGoSuiteOldFirmware(t *testing.T) {
	card := testenv.Reader(t, testcard.Config{Bio: true})[0]
	out, err := runSuite(t, card, suite(t), "-test.skip", "^("+yubicosRoot+"|TestYubiKeyX25519ECDH)$")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	newer := regexp.MustCompile(`test requires yubikey version 5\.7\.0: got 5\.4\.3`)
	skips := 0
	for _, m := range verdict.FindAllStringSubmatch(out, -1) {
		if m[1] == "SKIP" {
			skips++
		}
	}
	if said := len(newer.FindAllString(out, -1)); skips == 0 || skips != said {
		t.Errorf("%d tests skipped, %d of them because of the firmware\n%s", skips, said, out)
	}
}

// TestPivGoSuiteWantsYubicosRoot shows that the test left out fails for the
// reason given and for no other.
func TestPivGoSuiteWantsYubicosRoot(t *testing.T) {
	card := testenv.Reader(t)[0]
	out, err := runSuite(t, card, suite(t), "-test.run", "^"+yubicosRoot+"$")
	if err == nil || !strings.Contains(out, "failed to verify attestation: error verifying attestation certificate: x509: certificate signed by unknown authority") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPivGoVerifiesAttestation is the same check by piv-go under the root of
// the virtual card, beside another root, and beside a key that was imported.
func TestPivGoVerifiesAttestation(t *testing.T) {
	card := testenv.Card(t, testcard.Config{})
	yk, err := piv.Open(card.Reader)
	if err != nil {
		t.Fatal(err)
	}
	defer yk.Close()
	policy := piv.Key{Algorithm: piv.AlgorithmEC384, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyCached}
	if _, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotKeyManagement, policy); err != nil {
		t.Fatal(err)
	}
	f9, err := yk.AttestationCertificate()
	if err != nil {
		t.Fatal(err)
	}
	statement, err := yk.Attest(piv.SlotKeyManagement)
	if err != nil {
		t.Fatal(err)
	}
	a, err := (&piv.Verifier{Roots: pool(t, card.RootPEM)}).Verify(f9, statement)
	if err != nil {
		t.Fatal(err)
	}
	want := piv.Attestation{
		Version: piv.Version{Major: 5, Minor: 4, Patch: 3}, Serial: card.Serial, Formfactor: piv.FormfactorUSBAKeychain,
		PINPolicy: policy.PINPolicy, TouchPolicy: policy.TouchPolicy, Slot: piv.SlotKeyManagement,
	}
	if *a != want {
		t.Errorf("attestation says %+v, want %+v", *a, want)
	}
	other, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&piv.Verifier{Roots: pool(t, other.PEM())}).Verify(f9, statement); err == nil {
		t.Error("another root accepts the attestation")
	}
}

func pool(t *testing.T, pem []byte) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the root's PEM")
	}
	return p
}

// TestMain clears what would send a test to the computer's own pcscd.
func TestMain(m *testing.M) {
	os.Unsetenv("PCSCLITE_CSOCK_NAME")
	os.Exit(m.Run())
}
