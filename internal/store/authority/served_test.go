// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"valise/ledger"
)

// The ledger of either database, served: tiles as far as the checkpoint reaches, and
// proofs that check out.
func TestRecordServed(t *testing.T) { eachDatabase(t, testRecordServed) }

func testRecordServed(t *testing.T, path string) {
	const origin = "interieur.example/valise"
	s := testOpen(t, path)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	verifier, err := ledger.Verifier(origin, pub)
	must(t, err)
	if _, err := s.Record().Checkpoint(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("a checkpoint before the first: %v", err)
	}
	var entries []*ledger.Entry
	add := func(n int) {
		must(t, s.Update(t.Context(), func(tx *Tx) error {
			added := entries
			for i := range n {
				payload := fmt.Appendf(nil, "decision %d", len(entries)+i)
				e, err := ledger.NewEntry(ledger.KindStatement, payload, time.Unix(1790000000, 0))
				if err != nil {
					return err
				}
				if _, err := tx.AppendLeaf(e, payload); err != nil {
					return err
				}
				added = append(added, e)
			}
			entries = added
			return nil
		}))
	}
	add(300)
	var head ledger.Head
	must(t, s.View(t.Context(), func(tx *Tx) (err error) { head, err = tx.LedgerHead(); return err }))
	text, err := ledger.SignCheckpoint(t.Context(), origin, head, key)
	must(t, err)
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.AddCheckpoint(Checkpoint{Size: head.N, Note: text}) }))
	add(1) // which no checkpoint covers

	h := ledger.Handler(s.Record())
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	for path, size := range map[string]int{"/checkpoint": len(text), "/tile/0/000": 8192, "/tile/0/001.p/44": 44 * 32, "/tile/entries/001.p/44": 44 * 35} {
		if w := get(path); w.Code != 200 || w.Body.Len() != size {
			t.Errorf("%s: %d, %d bytes, want %d", path, w.Code, w.Body.Len(), size)
		}
	}
	for path, want := range map[string]int{
		"/tile/0/001.p/45": 404, "/tile/entries/001.p/45": 404, "/proof/" + hex.EncodeToString(make([]byte, 32)): 404,
		"/proof/" + hex.EncodeToString(entries[300].Subject[:]): 503,
	} {
		if w := get(path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	w := get("/proof/" + hex.EncodeToString(entries[123].Subject[:]))
	var i ledger.Inclusion
	must(t, json.Unmarshal(w.Body.Bytes(), &i))
	if got, err := i.Check(entries[123].Subject, verifier); err != nil || got != head || i.Index != 123 {
		t.Errorf("proof of leaf %d in %v: %v", i.Index, got, err)
	}
	if _, err := s.Record().Leaves(t.Context(), 300, 302); err == nil {
		// Beyond the end there is nothing to read: fewer leaves come back.
		if leaves, _ := s.Record().Leaves(t.Context(), 300, 302); len(leaves) != 1 {
			t.Errorf("%d leaves beyond the end", len(leaves))
		}
	}
	if _, err := s.Record().Leaves(t.Context(), 0, 257); err == nil {
		t.Error("more than a bundle at once")
	}
}
