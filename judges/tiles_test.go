// SPDX-License-Identifier: Apache-2.0

package judges

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/internal/testenv"
	"valise/ledger"
)

// fsck is Tessera's checker of logs: it fetches every tile and every bundle of
// entries of a served log, and rebuilds the tree.
const fsck = "github.com/transparency-dev/tessera/cmd/fsck"

const logOrigin = "interieur.example/valise"

// TestTesseraChecksTheLedger has a program of others (C2SP tlog-tiles) check
// what the ledger's handler and what a plain file server give out, at sizes
// with and without partial tiles, and then logs that somebody tampered with.
func TestTesseraChecksTheLedger(t *testing.T) {
	tool := testenv.Tool(t, fsck)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	vkey := filepath.Join(t.TempDir(), "ledger.vkey")
	if err := os.WriteFile(vkey, []byte(ledger.VerifierKey(logOrigin, pub)), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, url string) (bool, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, tool, "-storage_url", url+"/", "-public_key", vkey, "-ui=false", "-N", "2").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		ok, bad := strings.Contains(string(out), "Successfully fsck'd log"), strings.Contains(string(out), "fsck failed")
		if ok == bad {
			t.Fatalf("the checker says neither yes nor no:\n%s", out)
		}
		return ok, string(out)
	}

	for _, n := range []int{1, 256, 700} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			copied, dir := copyOf(t, key, n)
			served := httptest.NewServer(ledger.Handler(copied))
			defer served.Close()
			files := httptest.NewServer(http.FileServer(http.Dir(dir)))
			defer files.Close()
			for _, url := range []string{served.URL, files.URL} {
				if ok, out := check(t, url); !ok || !strings.Contains(out, fmt.Sprintf("log with size %d ", n)) {
					t.Errorf("an honest log of %d leaves is refused:\n%s", n, out)
				}
			}
		})
	}

	for name, tamper := range map[string]func(t *testing.T, dir string){
		"rewritten leaf":       func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "tile/entries/001"), 100) },
		"rewritten last leaf":  func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "tile/entries/002.p/188"), 187*35+9) },
		"rewritten hash":       func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "tile/0/002.p/188"), 100) },
		"rewritten upper hash": func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "tile/1/000.p/2"), 40) },
		"checkpoint":           func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "checkpoint"), len(logOrigin)+10) },
		"another's checkpoint": func(t *testing.T, dir string) { resign(t, dir) },
	} {
		t.Run(name, func(t *testing.T) {
			copied, dir := copyOf(t, key, 700)
			served := httptest.NewServer(ledger.Handler(copied))
			defer served.Close()
			files := httptest.NewServer(http.FileServer(http.Dir(dir)))
			defer files.Close()
			if ok, out := check(t, served.URL); !ok {
				t.Fatalf("the honest control is refused:\n%s", out)
			}
			tamper(t, dir)
			if ok, _ := check(t, files.URL); ok {
				t.Error("the checker finds nothing")
			}
		})
	}
}

// copyOf writes a record of n entries.
func copyOf(t *testing.T, key crypto.Signer, n int) (*ledger.Copy, string) {
	t.Helper()
	var (
		list []ledger.Item
		tree ledger.Builder
	)
	for i := range n {
		payload := fmt.Appendf(nil, "decision %d", i)
		entry, err := ledger.NewEntry(ledger.KindStatement, payload, time.Unix(int64(1790000000+i), 0))
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Add(entry.Leaf()); err != nil {
			t.Fatal(err)
		}
		list = append(list, ledger.Item{Index: int64(i), Entry: entry, Payload: payload})
	}
	checkpoint, err := ledger.SignCheckpoint(t.Context(), logOrigin, tree.Head(), key)
	if err != nil {
		t.Fatal(err)
	}
	var items iter.Seq2[ledger.Item, error] = func(yield func(ledger.Item, error) bool) {
		for _, i := range list {
			if !yield(i, nil) {
				return
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "copy")
	if err := ledger.WriteCopy(dir, checkpoint, items); err != nil {
		t.Fatal(err)
	}
	copied, err := ledger.OpenCopy(dir)
	if err != nil {
		t.Fatal(err)
	}
	return copied, dir
}

// flip changes one byte of a file that is there.
func flip(t *testing.T, name string, at int) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 1
	if err := os.WriteFile(name, data, fs.FileMode(0o644)); err != nil {
		t.Fatal(err)
	}
}

// resign gives a copy a checkpoint of the same tree under another key.
func resign(t *testing.T, dir string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "checkpoint")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, head, err := ledger.ParseCheckpoint(text)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = ledger.SignCheckpoint(t.Context(), logOrigin, head, key); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
