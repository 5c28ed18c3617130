// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/enroll/enrolltest"
	"valise/internal/testenv"
)

// TestGatewayEvidence asks for gateways' certificates on an HSM's statement: one that
// holds, ones that do not, and the statement of a real HSM, whose key is elsewhere.
func TestGatewayEvidence(t *testing.T) {
	soft := testenv.SoftHSM(t)
	b := newBureau(t, soft, soft.PINFile)
	h := enrolltest.NewHSM(t, false)
	vectors := testenv.Vectors(t, "attest", "marvell")
	real := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(vectors, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	statement, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(real("attestation.b64"))))
	if err != nil {
		t.Fatal(err)
	}
	b.write("vendor.pem", string(h.Roots)+string(real("roots.pem")))
	b.write("real.dat", string(statement))
	b.write("real.pem", string(real("chain.pem")))
	b.write("key.dat", string(h.Statement))
	b.write("chain.pem", string(encodePEM(h.Chain...)))
	b.write("gateway.csr", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: enrolltest.CSR(t, h.Key)})))
	b.must("init")
	ask := func(more ...string) (string, error) {
		return b.run(append([]string{"gateway-cert", "--csr", "gateway.csr", "--name", "gw.interieur.example"}, more...)...)
	}
	out, err := ask("--evidence", "key.dat", "--certificates", "chain.pem")
	if err != nil || !strings.Contains(out, "BEGIN CERTIFICATE") {
		t.Fatalf("%v\n%s", err, out)
	}
	audit, err := os.ReadFile(filepath.Join(b.dir, "audit.jsonl"))
	if err != nil || !strings.Contains(string(audit), `"tier":"hardware"`) {
		t.Errorf("%v\n%s", err, audit)
	}
	for want, more := range map[string][]string{
		"go together":     {"--evidence", "key.dat"},
		"unknown_root":    {"--evidence", "key.dat", "--certificates", "chain-of-another.pem"},
		"key_mismatch":    {"--evidence", "real.dat", "--certificates", "real.pem"},
		"bad_signature":   {"--evidence", "key.dat", "--certificates", "real.pem"},
		"unknown_format":  {"--evidence", "junk", "--certificates", "chain.pem"},
		"neither PEM nor": {"--evidence", "key.dat", "--certificates", "junk"},
		"is larger than ": {"--evidence", "long", "--certificates", "chain.pem"},
	} {
		b.write("junk", strings.Repeat("j", 100))
		b.write("long", strings.Repeat("j", 1<<20))
		b.write("chain-of-another.pem", string(encodePEM(h.Chain[:2]...)))
		if _, err := ask(more...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", more, err)
		}
	}
}
