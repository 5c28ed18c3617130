// SPDX-License-Identifier: Apache-2.0

package testenv_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"valise/internal/testcard"
	"valise/internal/testenv"
)

// pivTool runs yubico-piv-tool, which is not ours.
func pivTool(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "yubico-piv-tool", "yubico-piv-tool"), args...)
	cmd.Env = append(os.Environ(), env...)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func TestCardIsSeenInsertedAndEjected(t *testing.T) {
	card := testenv.Card(t, testcard.Config{Serial: 10000101})
	status := func() string { return pivTool(t, nil, "-a", "status") }
	if out := status(); !strings.Contains(out, "10000101") {
		t.Fatalf("inserted card is not seen:\n%s", out)
	}
	card.Eject(t)
	if out := status(); strings.Contains(out, "10000101") {
		t.Fatalf("ejected card is seen:\n%s", out)
	}
	card.Insert(t)
	card.RestartPCSCD(t)
	if out := status(); !strings.Contains(out, "10000101") {
		t.Fatalf("card is not seen after insertion and restart of pcscd:\n%s", out)
	}
}

func TestReadersArePrivate(t *testing.T) {
	one := testenv.Reader(t, testcard.Config{Serial: 10000102}, testcard.Config{Serial: 10000103})
	two := testenv.Reader(t, testcard.Config{Serial: 10000104})
	for _, c := range []*testenv.CardReader{one[0], one[1], two[0]} {
		out := pivTool(t, c.Env(), "-r", c.Reader, "-a", "status")
		for _, other := range []string{"10000102", "10000103", "10000104"} {
			if seen := strings.Contains(out, other); seen != (other == fmt.Sprint(c.Serial)) {
				t.Errorf("card %d: sees %s: %v\n%s", c.Serial, other, seen, out)
			}
		}
	}
}

// pkcs11Tool lists the token's objects after login.
func pkcs11Tool(t *testing.T, k *testenv.Token) (string, error) {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "pkcs11-tool", "opensc"),
		"--module", k.Module, "--token-label", k.Label, "--login", "--pin", k.PIN, "--list-objects")
	cmd.Env = append(os.Environ(), k.Env()...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSoftHSM(t *testing.T) {
	k := testenv.SoftHSM(t)
	if out, err := pkcs11Tool(t, k); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if info, err := os.Stat(k.PINFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("PIN file: %v, %v", info, err)
	}
}

func TestSoftHSMServerIsKilledAndStartedAgain(t *testing.T) {
	s := testenv.SoftHSMServer(t)
	if out, err := pkcs11Tool(t, &s.Token); err != nil {
		t.Fatalf("server: %v\n%s", err, out)
	}
	s.Kill(t)
	if out, err := pkcs11Tool(t, &s.Token); err == nil {
		t.Fatalf("killed server answers:\n%s", out)
	}
	s.Start(t)
	if out, err := pkcs11Tool(t, &s.Token); err != nil {
		t.Fatalf("server started again: %v\n%s", err, out)
	}
}
