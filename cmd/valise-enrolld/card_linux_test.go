// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/enroll/ceremony"
	"valise/identity"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// The whole way with cards: two officers apply with valise officer apply, each with a
// key that their card makes in 9c, and the ceremony takes place with what they hand
// in.
func TestCeremonyWithCards(t *testing.T) {
	root, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	config := testcard.Config{Firmware: testcard.Version{Major: 5, Minor: 7, Patch: 1}, Root: root}
	cards := testenv.Reader(t, config, config)
	b, k := newCourt(t)
	b.write("vendor.pem", string(root.PEM()))
	b.write("card.pin", cards[0].PIN+"\n")
	valise := testenv.Build(t, "./cmd/valise")
	apply := func(card *testenv.CardReader, name string, role identity.Role, more ...string) (string, error) {
		t.Helper()
		cmd := exec.Command(valise, append([]string{
			"officer", "apply", "--home", filepath.Join(b.dir, name), "--role", string(role), "--for-ceremony", ceremonyName,
			"--card", fmt.Sprint("piv:?serial=", card.Serial), "--pin-file", filepath.Join(b.dir, "card.pin"), "--default-management-key",
			name + "@" + domain, filepath.Join(b.dir, name+".json"),
		}, more...)...)
		cmd.Env = append(os.Environ(), card.Env()...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	plan := fmt.Sprintf("name = %q\ndate = %q\ndomain = %q\n[tokens]\nroot = \"safe\"\nissuing = %q\n[endorsements]\nbuilt-in = false\nroots = [\"vendor.pem\"]\n",
		ceremonyName, time.Now().Format(time.DateOnly), domain, k.Label)
	for i, name := range []string{"olga", "omar"} {
		if out, err := apply(cards[i], name, identity.RoleOfficer); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		plan += fmt.Sprintf("[[officers]]\naddress = \"%s@%s\"\nrole = \"officer\"\napplication = \"%s.json\"\n", name, domain, name)
	}
	b.write("plan.toml", plan)
	if _, err := apply(cards[0], "olga", identity.RoleOfficer); err == nil {
		t.Error("an application was written over another one")
	}

	// One character of somebody's name is another person.
	honest := b.text("omar.json")
	b.write("omar.json", strings.Replace(honest, "omar@", "otto@", 1))
	if _, err := b.run("init", "--ceremony", filepath.Join(b.dir, "plan.toml")); err == nil {
		t.Fatal("a changed application was accepted")
	}
	b.write("omar.json", honest)
	b.must("init", "--ceremony", filepath.Join(b.dir, "plan.toml"))
	state, _ := b.replay()
	for _, o := range state.Officers() {
		chain := pemChain(t, b.file(officerFile(o.Address)))
		proven, err := state.Trust().Officer(chain, time.Now())
		if err != nil || proven.Key != o.Key {
			t.Fatalf("%s: %v", o.Address, err)
		}
		a, err := ceremony.ParseApplication([]byte(b.text(o.Address.Local() + ".json")))
		if err != nil {
			t.Fatal(err)
		}
		key, err := a.PublicKey()
		if err != nil || !key.(*ecdsa.PublicKey).Equal(proven.Leaf.PublicKey) || !bytes.Equal(a.Key, o.SPKI) {
			t.Errorf("%s has a certificate for another key than their card's (%v)", o.Address, err)
		}
	}
	var exit *exec.ExitError
	if out, err := apply(cards[1], "odd", identity.RoleOfficer); !errors.As(err, &exit) || !strings.Contains(out, "already") {
		t.Errorf("a second key in 9c: %v\n%s", err, out)
	}
}
