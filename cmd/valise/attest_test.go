// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/aes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"valise/internal/testcard"
	"valise/internal/testenv"
)

// testKey is the virtual card's management key.
var testKey = bytes.Repeat([]byte{0x5a}, 16)

// A cardReader speaks to a virtual card without a reader between.
type cardReader struct {
	t    *testing.T
	card *testcard.Card
}

// cardEvidence makes keys in 9a and 9d of a new virtual card and returns the
// attestations of both and the card's certificate, in DER.
func cardEvidence(t *testing.T, root *testcard.Root, firmware testcard.Version) (sign, unwrap, f9 []byte) {
	t.Helper()
	card, err := testcard.New(testcard.Config{Root: root, Firmware: firmware, FormFactor: 3, ManagementKey: testKey})
	if err != nil {
		t.Fatal(err)
	}
	card.PowerOn()
	r := &cardReader{t, card}
	r.send(0xa4, 0x04, 0x00, 0xa0, 0x00, 0x00, 0x03, 0x08)
	r.authenticate()
	attest := func(slot, algorithm byte) []byte {
		r.send(0x47, 0x00, slot, 0xac, 9, 0x80, 1, algorithm, 0xaa, 1, 2, 0xab, 1, 1) // PIN once, touch never
		return r.send(0xf9, slot, 0x00)
	}
	return attest(0x9a, 0x14), attest(0x9d, 0x11), r.certificate()
}

// send sends a command and returns the whole answer.
func (r *cardReader) send(ins, p1, p2 byte, data ...byte) []byte {
	r.t.Helper()
	apdu := []byte{0x00, ins, p1, p2}
	if len(data) > 0 {
		apdu = append(append(apdu, byte(len(data))), data...)
	}
	answer := r.card.Transmit(append(apdu, 0))
	var body []byte
	for {
		n := len(answer) - 2
		body = append(body, answer[:n]...)
		if answer[n] != 0x61 {
			if answer[n] != 0x90 {
				r.t.Fatalf("instruction %02x: status %x", ins, answer[n:])
			}
			return body
		}
		answer = r.card.Transmit([]byte{0x00, 0xc0, 0, 0, 0})
	}
}

// authenticate answers the card's challenge with the management key (SP
// 800-73-4 Part 2, Section 3.2.4).
func (r *cardReader) authenticate() {
	challenge := r.send(0x87, 0x08, 0x9b, 0x7c, 2, 0x81, 0)[4:]
	block, err := aes.NewCipher(testKey)
	if err != nil {
		r.t.Fatal(err)
	}
	response := make([]byte, 16)
	block.Encrypt(response, challenge)
	r.send(0x87, 0x08, 0x9b, append([]byte{0x7c, 18, 0x82, 16}, response...)...)
}

// certificate reads the card's own certificate from its object.
func (r *cardReader) certificate() []byte {
	object := cryptobyte.String(r.send(0xcb, 0x3f, 0xff, 0x5c, 3, 0x5f, 0xff, 0x01))
	var content, der cryptobyte.String
	if !object.ReadASN1(&content, asn1.Tag(0x53)) || !content.ReadASN1(&der, asn1.Tag(0x70)) {
		r.t.Fatalf("object %x holds no certificate", object)
	}
	return der
}

// runShow runs the command as main does and returns output and exit status.
func runShow(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var cli struct {
		Attest AttestCmd `cmd:""`
	}
	var out bytes.Buffer
	parser, err := kong.New(&cli, kong.BindTo(&out, (*io.Writer)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := parser.Parse(append([]string{"attest", "show"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	err = ctx.Run()
	if err == nil {
		return out.String(), 0
	}
	code, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err)
	if !ok {
		t.Fatalf("an error without an exit status: %v", err)
	}
	return out.String() + "\nvalise: " + err.Error(), code.ExitCode()
}

func writeFile(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func certificatePEM(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// What a virtual card states is shown and appraised; each refusal stands
// beside the honest card.
func TestAttestShow(t *testing.T) {
	root, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sign, unwrap, f9 := cardEvidence(t, root, testcard.Version{Major: 5, Minor: 7, Patch: 1})
	oldSign, _, oldF9 := cardEvidence(t, root, testcard.Version{Major: 5, Minor: 4, Patch: 3})
	roots := "--roots=" + writeFile(t, dir, "roots.pem", root.PEM())
	strangers := "--roots=" + writeFile(t, dir, "strangers.pem", stranger.PEM())
	both := writeFile(t, dir, "both.pem", certificatePEM(sign, unwrap, f9))
	one := writeFile(t, dir, "9a.der", sign)
	card := writeFile(t, dir, "f9.der", f9)
	old := writeFile(t, dir, "old.pem", certificatePEM(oldSign, oldF9))
	mixed := writeFile(t, dir, "mixed.pem", certificatePEM(sign, oldF9))
	lax := "--policy=" + writeFile(t, dir, "lax.toml", []byte("min_firmware = \"5.4.0\"\nkey_management = \"optional\"\n"))
	strict := "--policy=" + writeFile(t, dir, "strict.toml", []byte("touch_policies = [\"always\"]\n"))
	typo := "--policy=" + writeFile(t, dir, "typo.toml", []byte("min_firmwear = \"5.4.0\"\n"))
	for name, test := range map[string]struct {
		args []string
		exit int
		want string
	}{
		"both keys":         {[]string{roots, both}, 0, "verdict         accepted"},
		"two files in DER":  {[]string{roots, one, card}, 0, "slot 9a, P-384"},
		"no root":           {[]string{both}, 1, "refused: unknown_root"},
		"a stranger's root": {[]string{strangers, both}, 1, "refused: unknown_root"},
		"old firmware":      {[]string{roots, old}, 1, "refused: firmware_too_old"},
		"old, as allowed":   {[]string{roots, lax, old}, 0, "firmware 5.4.3"},
		"touch wanted":      {[]string{roots, strict, both}, 1, "refused: touch_policy"},
		"f9 of another":     {[]string{roots, mixed}, 2, "no certificate in the files issued"},
		"no slot":           {[]string{roots, card}, 1, "not YubiKey PIV evidence"},
		"no file":           {[]string{roots, filepath.Join(dir, "none.pem")}, 2, "no such file"},
		"not a certificate": {[]string{roots, writeFile(t, dir, "x", []byte("hello"))}, 2, "neither PEM nor"},
		"roots unreadable":  {[]string{"--roots=" + one, both}, 2, "roots"},
		"policy with typo":  {[]string{roots, typo, both}, 2, "unknown key"},
	} {
		if out, exit := runShow(t, test.args...); exit != test.exit || !strings.Contains(out, test.want) {
			t.Errorf("%s: exit %d, want %d, and output with %q:\n%s", name, exit, test.exit, test.want, out)
		}
	}
}

// The JSON form says the same, with null for what is unstated.
func TestAttestShowJSON(t *testing.T) {
	root, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sign, unwrap, f9 := cardEvidence(t, root, testcard.Version{Major: 5, Minor: 7, Patch: 1})
	roots := "--roots=" + writeFile(t, dir, "roots.pem", root.PEM())
	out, exit := runShow(t, "--json", roots, writeFile(t, dir, "both.pem", certificatePEM(unwrap, f9, sign)))
	var got struct {
		Verdict string
		Claims  struct {
			Key   struct{ Slot, Firmware string }
			Fresh *bool
			Same  *bool `json:"same_card"`
		}
		Rules []struct{ Rule string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if exit != 0 || got.Verdict != "accepted" || got.Claims.Key.Slot != "9a" || got.Claims.Key.Firmware != "5.7.1" ||
		got.Claims.Fresh != nil || got.Claims.Same == nil || !*got.Claims.Same || len(got.Rules) < 16 {
		t.Errorf("exit %d: %s", exit, out)
	}
	out, exit = runShow(t, "--json", writeFile(t, dir, "9a.pem", certificatePEM(sign, f9)))
	text, _, _ := strings.Cut(out, "\nvalise: ")
	var refused struct{ Verdict, Reason, Error string }
	if err := json.Unmarshal([]byte(text), &refused); err != nil || exit != 1 || refused.Verdict != "refused" || refused.Reason != "unknown_root" || refused.Error == "" {
		t.Errorf("exit %d, %v: %s", exit, err, out)
	}
}

// Other vendors' evidence is told from ours.
func TestAttestShowOtherVendors(t *testing.T) {
	dir := testenv.Vectors(t, "attest")
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if out, exit := runShow(t, file); exit == 0 || !strings.Contains(out, "not YubiKey PIV evidence") {
			t.Errorf("%s: exit %d: %s", filepath.Base(file), exit, out)
		}
	}
}

// A stranger's names do not steer the terminal.
func TestPrintable(t *testing.T) {
	if got := printable("CN=\x1b[2Jalice\u202e\n"); strings.ContainsAny(got, "\x1b\n\u202e") || !strings.Contains(got, "alice") {
		t.Errorf("%q", got)
	}
}

// TestAttestShowHSM shows what a real HSM said, under the real roots.
func TestAttestShowHSM(t *testing.T) {
	vectors := testenv.Vectors(t, "attest", "marvell")
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(vectors, "attestation.b64"))
	if err != nil {
		t.Fatal(err)
	}
	statement, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "statement.dat")
	if err := os.WriteFile(path, statement, 0o600); err != nil {
		t.Fatal(err)
	}
	chain, roots := filepath.Join(vectors, "chain.pem"), filepath.Join(vectors, "roots.pem")
	out, exit := runShow(t, path, chain, "--roots", roots)
	if exit != 0 {
		t.Errorf("exit status %d\n%s", exit, out)
	}
	for _, want := range []string{"P-256, generated in the hardware: true", "5.3G1953-ICM001225, FIPS: true", "can leave it  false", "Hawksbill Root v1 prod", "localca.liquidsecurity.cavium.com", "verdict         accepted"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, exit := runShow(t, path, chain); exit != exitRefused || !strings.Contains(out, "unknown_root") {
		t.Errorf("under the built-in roots: exit status %d\n%s", exit, out)
	}
}
