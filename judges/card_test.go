// SPDX-License-Identifier: Apache-2.0

package judges

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"valise/internal/testenv"
)

// run runs a program against the card and returns everything it prints.
func run(t *testing.T, card *testenv.CardReader, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), card.Env()...)
	cmd.Dir = card.Dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs a program that has to succeed.
func must(t *testing.T, card *testenv.CardReader, program string, args ...string) string {
	t.Helper()
	out, err := run(t, card, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return out
}

// pivTool is Yubico's command.
func pivTool(t *testing.T) string { return testenv.Need(t, "yubico-piv-tool", "yubico-piv-tool") }

// guard makes sure that a destructive test can reach nothing but the card
// that it made: a private socket, and behind it this serial number.
func guard(t *testing.T, card *testenv.CardReader) {
	t.Helper()
	if err := guarded(card, must(t, card, pivTool(t), "-a", "status")); err != nil {
		t.Fatal(err)
	}
}

var serialLine = regexp.MustCompile(`(?m)^Serial Number:\s*(\d+)$`)

func guarded(card *testenv.CardReader, status string) error {
	socket, err := filepath.EvalSymlinks(card.Socket)
	if err != nil {
		return err
	}
	if strings.HasPrefix(socket, "/run/") || filepath.Dir(filepath.Dir(socket)) != card.Dir {
		return fmt.Errorf("socket %s is not the test's own: nothing may be destroyed behind it", socket)
	}
	found := serialLine.FindAllStringSubmatch(status, -1)
	if len(found) != 1 || found[0][1] != fmt.Sprint(card.Serial) {
		return fmt.Errorf("the card in the reader is not number %d: nothing may be destroyed on it\n%s", card.Serial, status)
	}
	return nil
}

func TestGuard(t *testing.T) {
	card := testenv.Reader(t)[0]
	status := must(t, card, pivTool(t), "-a", "status")
	if err := guarded(card, status); err != nil {
		t.Errorf("own card is refused: %v", err)
	}
	other := *card
	other.Serial++
	if err := guarded(&other, status); err == nil {
		t.Error("another card's serial number passes")
	}
	public := *card
	public.Dir = t.TempDir()
	if err := guarded(&public, status); err == nil {
		t.Error("a socket elsewhere passes")
	}
}

// issue generates a key in the slot with yubico-piv-tool and imports a
// certificate for it, which both PKCS#11 modules need to find the key. The
// certificate is issued by a throwaway key, because selfsign-certificate of
// yubico-piv-tool 2.2.0 fails on Debian 12 before it sends any command.
func issue(t *testing.T, card *testenv.CardReader, slot, algorithm string) *x509.Certificate {
	t.Helper()
	out := must(t, card, pivTool(t), "-a", "generate", "-s", slot, "-A", algorithm, "-o", "-")
	start := strings.Index(out, "-----BEGIN")
	if start < 0 {
		t.Fatalf("no public key in\n%s", out)
	}
	block, _ := pem.Decode([]byte(out[start:]))
	if block == nil {
		t.Fatalf("no public key in\n%s", out)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "slot " + slot},
		Issuer:       pkix.Name{CommonName: "throwaway"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: template.Issuer}, public, issuer)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(card.Dir, slot+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, card, pivTool(t), "-a", "import-certificate", "-s", slot, "-i", file)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
