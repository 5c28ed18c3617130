// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/attest"
	"valise/hsm"
	"valise/internal/keys"
	"valise/internal/testenv"
)

// valise runs the command; what it wrote to both outputs comes back.
func (o *office) valise(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, o.bin["valise"], args...)
	cmd.Env, cmd.Dir = o.env, o.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// invitation writes a code into a file and returns the argument that names it.
func (o *office) invitation(t *testing.T, who string) string {
	t.Helper()
	path := filepath.Join(o.dir, who+".code")
	code := o.run("valise-enrolld", "invite", "--config", filepath.Join(o.dir, "enrolld.toml"), who+"@interieur.example")
	if err := os.WriteFile(path, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	return "@" + path
}

// TestEnrollWithTPM: an official whose keys are in the computer's TPM enrolls and
// writes; a TPM of an unknown maker is refused, and nobody's keys are made again.
func TestEnrollWithTPM(t *testing.T) {
	soft := testenv.TPM(t)
	o := newOfficeFor(t, soft.Roots, "[appraisal]\ntpm = true\n")
	alice, bob := filepath.Join(o.dir, "alice"), filepath.Join(o.dir, "bob")
	for _, home := range []string{alice, bob} {
		t.Cleanup(func() { _, _ = o.valise(context.Background(), "agent", "--stop", "--home", home) })
	}
	out, err := o.valise(t.Context(), "enroll", "--home", alice, o.invitation(t, "alice"), "--gateway", o.gateway, "--card", "tpm:?path="+soft.Path, "--pin-file", soft.PINFile)
	if err != nil || !strings.Contains(out, "proving that the key is in the TPM") || !strings.Contains(out, "enrolled as alice@interieur.example") {
		t.Fatalf("%v\n%s", err, out)
	}
	foreign := testenv.TPM(t)
	out, err = o.valise(t.Context(), "enroll", "--home", bob, o.invitation(t, "bob"), "--gateway", o.gateway, "--card", "tpm:?path="+foreign.Path, "--pin-file", foreign.PINFile)
	if err == nil || !strings.Contains(out, "no endorsed root stands above the TPM's certificate") {
		t.Fatalf("a TPM of an unknown maker: %v\n%s", err, out)
	}
	if err := os.RemoveAll(bob); err != nil {
		t.Fatal(err)
	}
	out, err = o.valise(t.Context(), "enroll", "--home", bob, o.invitation(t, "bob"), "--gateway", o.gateway, "--card", fmt.Sprint("piv:?serial=", o.cards[1].Serial), "--pin-file", filepath.Join(o.dir, "pin"), "--default-management-key")
	if err != nil {
		t.Fatalf("a card beside: %v\n%s", err, out)
	}
	for home, pin := range map[string]string{alice: soft.PINFile, bob: filepath.Join(o.dir, "pin")} {
		if out, err := o.valise(t.Context(), "unlock", "--home", home, "--pin-file", pin); err != nil {
			t.Fatalf("unlock %s: %v\n%s", home, err, out)
		}
	}
	if out, err := o.valise(t.Context(), "send", "--home", alice, "bob@interieur.example", "from the TPM"); err != nil {
		t.Fatalf("send: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		out, err = o.valise(ctx, "receive", "--home", bob)
		if strings.Contains(out, "from the TPM") {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("receive: %v\n%s", err, out)
		}
	}
}

// TestEnrollWitnessed: a card that cannot attest gets as far as the officers, where
// the authority takes such cards, and nowhere where it does not. The card is a
// SoftHSM token, of which nobody would believe a word.
func TestEnrollWitnessed(t *testing.T) {
	o := newOfficeFor(t, nil, "[appraisal]\nwitnessed = true\n[device]\napprovals = 2\n")
	home := filepath.Join(o.dir, "alice")
	args := []string{"enroll", "--home", home, o.invitation(t, "alice"), "--gateway", o.gateway, "--card", o.token.URI(), "--pin-file", o.token.PINFile}
	out, err := o.valise(t.Context(), args...)
	if err == nil || !strings.Contains(out, "--witnessed") {
		t.Fatalf("without --witnessed: %v\n%s", err, out)
	}
	// It waits for officers, who are not there: until the order is "processing".
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan string)
	go func() {
		out, _ := o.valise(ctx, append(args, "--witnessed")...)
		ended <- out
	}()
	err = awaitText(filepath.Join(o.dir, "enrolld-audit.jsonl"), "order finalized")
	cancel()
	out = <-ended
	if err != nil || !strings.Contains(out, "two officers must see it now") || strings.Contains(out, "enrolled as") {
		t.Errorf("%v\n%s", err, out)
	}
	audit, err := os.ReadFile(filepath.Join(o.dir, "enrolld-audit.jsonl"))
	if err != nil || !bytes.Contains(audit, []byte("evidence accepted")) || bytes.Contains(audit, []byte(`"certificate issued","kind":"device"`)) {
		t.Errorf("%v\n%s", err, audit)
	}
}

// TestAttestShowTPM shows what a TPM said in an attestation object that was kept.
func TestAttestShowTPM(t *testing.T) {
	soft := testenv.TPM(t)
	token, err := keys.OpenToken(t.Context(), soft.URI(""), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	key, err := token.Generate(t.Context(), "9a", hsm.GenerateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	certifier := token.(hsm.Certifier)
	parts, err := certifier.Certify(t.Context(), key, attest.CertificationNonce([]byte("token.thumbprint")))
	if err != nil {
		t.Fatal(err)
	}
	chain, ak, err := certifier.Endorsement(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := attest.Answer(key, []byte("token.thumbprint"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Activation = make([]byte, 32)
	ev := attest.Evidence{Format: attest.FormatTPM, Chain: append(append(parts, ak), chain...)}
	object, err := attest.MarshalAttestationObject(attest.NewAttestationObject(ev, answer))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, roots := filepath.Join(dir, "object.cbor"), filepath.Join(dir, "roots.pem")
	for name, data := range map[string][]byte{path: object, roots: soft.Roots} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, exit := runShow(t, path, "--roots", roots)
	for _, want := range []string{"P-384, generated in the hardware: true", "can leave it  false", "swtpm-localca-rootca", "activated       unstated", "verdict         accepted"} {
		if exit != 0 || !strings.Contains(out, want) {
			t.Errorf("exit status %d, no %q in\n%s", exit, want, out)
		}
	}
	if out, exit := runShow(t, path); exit != exitRefused || !strings.Contains(out, "unknown_root") {
		t.Errorf("under the built-in roots: exit status %d\n%s", exit, out)
	}
}
