// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A PublishedCard names evidence of a real YubiKey by the SHA-256 of its two
// certificates: the slot's and the card's own (f9). Nobody here held those
// cards; piv-go's tests publish what they wrote.
type PublishedCard struct{ Slot, Card string }

var (
	// YubiKey543 is slot 9a of a card with firmware 5.4.3, sound under "Yubico
	// PIV Root CA Serial 263751".
	YubiKey543 = PublishedCard{
		"5c7793cd4d91b1eae05d5bd5c0e1a7ce7e0774285d40fffbfb451af69216eef5",
		"dcbfad8125283ad41e94c31bbb81041453a1e5d3bc084112a0e8e50fc00610cc",
	}
	// YubiKey437 is slot 9a of a card with firmware 4.3.7, whose f9 has no basic
	// constraints.
	YubiKey437 = PublishedCard{
		"06842907b3b2ea05ab815dbea814c1fcb760157c0d803485caca71c7768cbce2",
		"5378deb2de3f07591469ce1474b5934794755bfa6dcc38ce2c3552248e862b26",
	}
)

var quotedCertificate = regexp.MustCompile(`"-----BEGIN CERTIFICATE-----[^"]*"`)

// Published reads a real card's certificates, PEM, out of the tests of the
// piv-go module that this module requires; the project keeps no copy.
func Published(t testing.TB, card PublishedCard) []byte {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-piv/piv-go/v2")
	cmd.Dir = Root(t)
	dir, err := cmd.Output()
	if err != nil {
		t.Fatalf("testenv: find piv-go: %v", err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "piv", "key_test.go"))
	if err != nil {
		missing(t, "piv-go", "the tests of piv-go are not at hand: run without -mod=vendor ("+err.Error()+")")
	}
	found := map[string][]byte{}
	for _, quoted := range quotedCertificate.FindAll(source, -1) {
		text, err := strconv.Unquote(string(quoted))
		if err != nil {
			continue
		}
		if block, _ := pem.Decode([]byte(text)); block != nil {
			sum := sha256.Sum256(block.Bytes)
			found[hex.EncodeToString(sum[:])] = pem.EncodeToMemory(block)
		}
	}
	slot, own := found[card.Slot], found[card.Card]
	if slot == nil || own == nil {
		t.Fatal("testenv: piv-go's tests do not hold this card's certificates any more")
	}
	return bytes.Join([][]byte{slot, own}, nil)
}
