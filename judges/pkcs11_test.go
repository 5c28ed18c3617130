// SPDX-License-Identifier: Apache-2.0

package judges

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"valise/internal/testcard"
	"valise/internal/testenv"
)

// rsaTests are the checks that pkcs11-tool --test makes with an RSA key. With
// elliptic curves it makes none, so signatures and key agreement follow apart.
var rsaTests = []string{
	"RSA-X-509: OK", "RSA-PKCS: OK", "SHA1-RSA-PKCS: OK", "SHA256-RSA-PKCS: OK", "No errors",
}

// TestPKCS11Modules puts the card behind two PKCS#11 modules that know nothing
// of each other or of us.
func TestPKCS11Modules(t *testing.T) {
	tool := testenv.Need(t, "pkcs11-tool", "opensc")
	modules := map[string]string{
		"opensc": testenv.Need(t, "/usr/lib*/*/opensc-pkcs11.so", "opensc-pkcs11"),
		"ykcs11": testenv.Need(t, "/usr/lib*/*/libykcs11.so.2", "ykcs11"),
	}
	card := testenv.Reader(t, testcard.Config{PIN: "48151623"})[0]
	guard(t, card)
	certs := map[string]*x509.Certificate{
		"01": issue(t, card, "9a", "ECCP256"),
		"02": issue(t, card, "9c", "RSA2048"),
		"03": issue(t, card, "9d", "ECCP384"),
	}
	must(t, card, pivTool(t), "-a", "set-chuid")
	for name, module := range modules {
		login := func(args ...string) []string {
			return append([]string{"--module", module, "--login", "--pin", card.PIN}, args...)
		}
		t.Run(name+"/test", func(t *testing.T) {
			out := must(t, card, tool, login("--test")...)
			for _, line := range rsaTests {
				if !strings.Contains(out, line) {
					t.Errorf("no line %q in\n%s", line, out)
				}
			}
			for _, word := range []string{"ERR", "failed", "unexpected"} {
				if strings.Contains(out, word) {
					t.Errorf("%q in\n%s", word, out)
				}
			}
		})
		t.Run(name+"/sign", func(t *testing.T) {
			digest := make([]byte, 32)
			rand.Read(digest)
			in, sig := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "sig")
			write(t, in, digest)
			must(t, card, tool, login("--sign", "--id", "01", "--mechanism", "ECDSA", "--signature-format", "openssl",
				"--input-file", in, "--output-file", sig)...)
			public := certs["01"].PublicKey.(*ecdsa.PublicKey)
			if !ecdsa.VerifyASN1(public, digest, read(t, sig)) {
				t.Error("signature does not verify")
			}
		})
		t.Run(name+"/derive", func(t *testing.T) { derive(t, card, tool, login, certs["03"]) })
		t.Run(name+"/wrong PIN", func(t *testing.T) {
			out, err := run(t, card, tool, "--module", module, "--login", "--pin", "000000", "--list-objects")
			if err == nil || !strings.Contains(out, "CKR_PIN_INCORRECT") {
				t.Errorf("%v\n%s", err, out)
			}
			must(t, card, tool, login("--list-objects")...)
		})
	}
}

// derive agrees on a secret with the P-384 key in slot 9D.
func derive(t *testing.T, card *testenv.CardReader, tool string, login func(...string) []string, cert *x509.Certificate) {
	peer, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(peer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	public, err := cert.PublicKey.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	in, out := filepath.Join(t.TempDir(), "peer.der"), filepath.Join(t.TempDir(), "secret")
	write(t, in, spki)
	must(t, card, tool, login("--derive", "--id", "03", "--mechanism", "ECDH1-DERIVE", "--input-file", in, "--output-file", out)...)
	if !bytes.Equal(read(t, out), want) {
		t.Error("both sides do not have the same secret")
	}
}

// TestYubicoTool reads the card as its maker's command does.
func TestYubicoTool(t *testing.T) {
	card := testenv.Reader(t, testcard.Config{Serial: 10000042})[0]
	guard(t, card)
	issue(t, card, "9a", "ECCP256")
	issue(t, card, "9c", "ECCP384")
	issue(t, card, "82", "RSA2048")
	out := must(t, card, pivTool(t), "-a", "status")
	for _, want := range []string{
		"Version:\t5.4.3", "Serial Number:\t10000042", "Subject DN:\tCN=slot 9a", "Subject DN:\tCN=slot 9c",
		"Subject DN:\tCN=slot 82", "Algorithm:\tECCP256", "Algorithm:\tECCP384", "Algorithm:\tRSA2048", "PIN tries left:\t3",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	run(t, card, pivTool(t), "-a", "verify-pin", "-P", "111111")
	if out := must(t, card, pivTool(t), "-a", "status"); !strings.Contains(out, "PIN tries left:\t2") {
		t.Errorf("a wrong PIN cost no try\n%s", out)
	}
	attested := must(t, card, pivTool(t), "-a", "attest", "-s", "9a")
	if !strings.Contains(attested, "BEGIN CERTIFICATE") {
		t.Errorf("no attestation\n%s", attested)
	}
	changed := must(t, card, pivTool(t), "-a", "change-pin", "-P", "123456", "-N", "24681012")
	if !slices.Contains(strings.Split(changed, "\n"), "Successfully changed the pin code.") {
		t.Errorf("%s", changed)
	}
	must(t, card, pivTool(t), "-a", "verify-pin", "-P", "24681012")
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
