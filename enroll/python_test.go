// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/internal/testenv"
)

// python3-acme, the library behind certbot, in a process of its own.
func TestPythonACME(t *testing.T) {
	testenv.Need(t, "/usr/lib/python3/dist-packages/acme/client.py", "python3-acme")
	python := testenv.Need(t, "/usr/bin/python3", "python3-acme")
	s := newSite(t, options{})
	card, inv := s.card(), s.invite("alice")
	bundle := filepath.Join(t.TempDir(), "server.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	encode := base64.RawURLEncoding.EncodeToString
	cmd := exec.CommandContext(ctx, python, "testdata/enroll.py", s.server.URL+"/acme/directory", inv.KID, encode(inv.Key), card.ID(t).String())
	cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+bundle, "PYTHONDONTWRITEBYTECODE=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var problems []string
	var chain [][]byte
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "attest":
			_, err = io.WriteString(in, encode(card.Answer(t, rest))+"\n")
		case "csr":
			_, err = io.WriteString(in, encode(enrolltest.CSR(t, card.Key))+"\n")
		case "problem":
			kind, _, _ := strings.Cut(strings.TrimPrefix(rest, "urn:ietf:params:acme:error:"), " ")
			problems = append(problems, kind)
		case "chain":
			text, decodeErr := base64.RawURLEncoding.DecodeString(rest)
			for block, more := pem.Decode(text); block != nil; block, more = pem.Decode(more) {
				chain = append(chain, block.Bytes)
			}
			err = decodeErr
		default:
			err = fmt.Errorf("a line that nobody asked for: %q", lines.Text())
		}
		if err != nil {
			t.Error(err)
			cancel()
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if want := []string{"externalAccountRequired", "rejectedIdentifier", "unauthorized"}; !slices.Equal(problems, want) {
		t.Errorf("problems %q, want %q", problems, want)
	}
	if want := []string{"invitation_required", "wrong_identifier", "bad_nonce", "revocation_by_officers"}; !slices.Equal(s.audit.reasons(t), want) {
		t.Errorf("the audit stream says %q, want %q", s.audit.reasons(t), want)
	}
	if device := s.check(chain, "alice"); device.ID != card.ID(t) {
		t.Error("issued for another key")
	}
}
