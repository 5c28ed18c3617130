// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/internal/testenv"
)

// While the HSM is away, what needs it is refused at once with a clear problem and
// changes nothing; with the HTTPS key in a token of its own the desk stays open for
// whoever comes anew; the daemon goes on by itself when the HSM is back, and nothing
// is lost or issued twice.
func TestHSMOutage(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	b := newBureau(t, server, server.PINFile)
	newToken(t, &server.Backing, "https")
	b.amend("[endorsements]", fmt.Sprintf("[tls-token]\nuri = \"pkcs11:token=https?module-path=%s\"\npin-source = %q\n[endorsements]",
		server.Backing.Module, server.PINFile))
	b.must("init")
	b.must("roster", "import", "people.csv")
	b.start()
	root := b.root()
	alice, aliceCard := b.client(root), b.vendor.Card(t, enrolltest.CardConfig{})
	issuedTo(t, root, alice.Enroll(b.invite("alice"), aliceCard), "alice@interieur.example")
	bob, bobCard := b.client(root), b.vendor.Card(t, enrolltest.CardConfig{})
	if r := bob.Register(b.invite("bob")); r.Status != http.StatusCreated {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	o, _ := bob.NewOrder(bobCard.ID(t).String())
	if ch, r := bob.Attest(o, bobCard.Answer(t, bob.KeyAuthorization(o))); ch == nil || ch.Status != "valid" {
		t.Fatalf("%d %s", r.Status, r.Body)
	}

	server.Kill(t)
	until(t, "/healthz turns red", func() bool {
		code, body := b.health()
		return code == http.StatusServiceUnavailable && !strings.Contains(body, `"hsm":"ok"`) && strings.Contains(body, `"https key":"ok"`)
	})
	refused := func(what string, r *enrolltest.Response, since time.Time) {
		t.Helper()
		after, err := strconv.Atoi(r.Header.Get("Retry-After"))
		if r.Status != http.StatusServiceUnavailable || r.Type != "urn:ietf:params:acme:error:serverInternal" || r.Reason != "hsm_unavailable" ||
			err != nil || after < 1 || r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s, Retry-After %q", what, r.Status, r.Body, r.Header.Get("Retry-After"))
		}
		if took := time.Since(since); took > 2*time.Second {
			t.Errorf("%s was refused after %v, not at once", what, took)
		}
	}
	leaves := b.leaves()
	csr := enrolltest.CSR(t, bobCard.Key)
	for range 3 {
		began := time.Now()
		_, r := bob.Finish(o, csr)
		refused("finalize", r, began)
		began = time.Now()
		_, r = alice.NewOrder(aliceCard.ID(t).String())
		refused("an order", r, began)
	}
	if bob.Post(o.URL, nil).Into(t, o); o.Status != "ready" {
		t.Errorf("the refused order is %q", o.Status)
	}
	// Whoever comes now is answered too: nothing of HTTPS waits for the HSM.
	stranger := b.client(root)
	if nonce := stranger.Nonce(); nonce == "" {
		t.Error("a new connection was not answered")
	}
	if n := b.leaves(); n != leaves {
		t.Errorf("%d leaves were recorded meanwhile", n-leaves)
	}

	server.Start(t)
	until(t, "/healthz turns green", func() bool { code, _ := b.health(); return code == http.StatusOK })
	done, r := bob.Finish(o, csr)
	if done == nil {
		t.Fatalf("finalize afterwards: %d %s", r.Status, r.Body)
	}
	until(t, "the order is finished", func() bool { bob.Post(o.URL, nil).Into(t, o); return o.Status == "valid" })
	issuedTo(t, root, bob.Fetch(o), "bob@interieur.example")
	if out := b.must("list"); strings.Count(out, "device") != 2 || strings.Contains(out, "not signed yet") {
		t.Errorf("list printed\n%s", out)
	}
	audit, err := os.ReadFile(b.dir + "/audit.jsonl")
	if err != nil || bytes.Count(audit, []byte(`"hsm_unavailable"`)) != 6 {
		t.Errorf("the audit stream has %d refusals (%v)", bytes.Count(audit, []byte(`"hsm_unavailable"`)), err)
	}
}

// leaves counts the certificates on record, beside a running daemon.
func (b *bureau) leaves() int {
	b.t.Helper()
	return strings.Count(b.must("list"), "\n")
}

// Nobody else of the same user reads the daemon's memory, and it leaves no core file.
func TestDaemonLeavesNoCore(t *testing.T) {
	k := testenv.SoftHSM(t)
	b := newBureau(t, k, k.PINFile)
	b.must("init")
	b.start()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", b.daemon.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if strings.Join(strings.Fields(rest), " ") != "0 0 bytes" {
				t.Errorf("it may leave a core file: %s", line)
			}
			return
		}
	}
	t.Error("there is no limit on core files")
}
