// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Pulled and inserted, a card is the same card: keys, objects, secrets.
func TestCardOutlivesPower(t *testing.T) {
	c, path := newFileClient(t)
	c.admin()
	public := ecPublic(t, elliptic.P384(), c.generate(0x9a, algP384, pinOnce, touchNever))
	c.put(0x5fc105, []byte("certificate"))
	c.must(insChangeReference, 0, refPIN, two(DefaultPIN, "24681012"))
	c.must(insSetManagementKey, 0xff, 0xff, append([]byte{algAES128, refManagement, 16}, make([]byte, 16)...))
	c.card.Close()

	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v", info, err)
	}
	card, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	again := &client{t, card}
	again.powerUp()
	if _, sw := again.use(0x9a, algP384, 0x81, make([]byte, 48)); sw != swSecurity {
		t.Errorf("the PIN outlived power: %04x", sw)
	}
	if sw := again.verify("24681012"); sw != swOK {
		t.Errorf("PIN: %04x", sw)
	}
	digest := randomBytes(48)
	if signature, sw := again.use(0x9a, algP384, 0x81, digest); sw != swOK || !ecdsa.VerifyASN1(public, digest, signature) {
		t.Errorf("key: %04x", sw)
	}
	if got, sw := again.get(0x5fc105); sw != swOK || string(got) != "certificate" {
		t.Errorf("object: %q, %04x", got, sw)
	}
	if sw := again.manage(algAES128, make([]byte, 16)); sw != swOK {
		t.Errorf("management key: %04x", sw)
	}
}

// A card is in one reader at a time.
func TestCardIsInOneReader(t *testing.T) {
	c, path := newFileClient(t)
	if _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second reader: %v", err)
	}
	c.card.Close()
	card, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	card.Close()
	if _, err := Create(path, Config{Root: testRoot(t)}); err == nil {
		t.Error("a card is overwritten")
	}
}

// A card that cannot remember refuses instead of forgetting.
func TestCardThatCannotRemember(t *testing.T) {
	c, path := newFileClient(t)
	c.admin()
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if sw := c.verify("111111"); sw != swMemory {
		t.Errorf("wrong PIN: %04x", sw)
	}
	if sw := c.put(0x5fc105, []byte{1}); sw != swMemory {
		t.Errorf("object: %04x", sw)
	}
}

func TestStateFileMalformed(t *testing.T) {
	c, path := newFileClient(t)
	c.admin()
	c.generate(0x9a, algP256)
	c.card.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseState(good); err != nil {
		t.Fatal(err)
	}
	for what, edit := range map[string][2]string{
		"unknown field": {`"format"`, `"form"`},
		"other format":  {`"format": 1`, `"format": 2`},
		"firmware":      {`"5.4.3"`, `"5.4"`},
		"tries":         {`"left": 3`, `"left": 4`},
		"no tries":      {`"tries": 3`, `"tries": 0`},
		"algorithm":     {`"algorithm": 17`, `"algorithm": 20`},
		"cipher":        {`"algorithm": 3`, `"algorithm": 8`},
		"no F9":         {`"attestation"`, `"attestation": null, "keys": {}, "attestation"`},
	} {
		bad := strings.Replace(string(good), edit[0], edit[1], 1)
		if what == "no F9" {
			bad = `{"format": 1}`
		}
		if bad == string(good) {
			t.Errorf("%s: nothing to edit", what)
		}
		if _, err := parseState([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{' '}, maxStateFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a file without end is read")
	}
}

// Several cards share a root file; nobody else's file is taken for one.
func TestRootFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.pem")
	first, err := OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenRoot(path)
	if err != nil || !second.Certificate.Equal(first.Certificate) {
		t.Errorf("second opening: %v", err)
	}
	if other := testRoot(t); other.Certificate.Subject.String() == first.Certificate.Subject.String() {
		t.Error("two roots have one name")
	}
	if !strings.Contains(first.Certificate.Subject.CommonName, "virtual cards") {
		t.Errorf("name %q does not warn", first.Certificate.Subject.CommonName)
	}
	if bytes.Contains(first.PEM(), []byte("PRIVATE")) {
		t.Error("the exported root holds its key")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("root file: %v, %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	for what, text := range map[string][]byte{"empty": nil, "certificate only": first.PEM(), "other": []byte("hello")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRoot(path); err == nil {
			t.Errorf("%s: accepted", what)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, text) {
			t.Errorf("%s: overwritten", what)
		}
	}
}
