// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The MLS working group's vectors. They are not part of this repository:
// MLS_VECTORS names their folder, or VALISE_VECTORS the folder above it.

var tally struct {
	sync.Mutex
	passed, failed, skipped int
	suites                  map[Suite]int
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if n := tally.passed + tally.failed + tally.skipped; n > 0 {
		var suites []string
		for _, s := range slices.Sorted(maps.Keys(tally.suites)) {
			suites = append(suites, fmt.Sprint(uint16(s)))
		}
		fmt.Printf("mls vectors: %d passed, %d failed, %d skipped (suites %s)\n",
			tally.passed, tally.failed, tally.skipped, strings.Join(suites, ", "))
	}
	os.Exit(code)
}

// hexBytes decodes from JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == nil {
		return nil
	}
	v, err := hex.DecodeString(*s)
	*h = v
	return err
}

// header is what vectors with a suite share.
type header struct {
	Suite Suite `json:"cipher_suite"`
}

func (h header) params(t *testing.T) *suiteParams {
	t.Helper()
	s, err := h.Suite.params()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func vectorFile(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("MLS_VECTORS")
	chosen := dir != ""
	if dir == "" {
		if dir = os.Getenv("VALISE_VECTORS"); dir == "" {
			dir = filepath.Join("..", "..", "shared", "vectors")
		}
		dir = filepath.Join(dir, "mls")
	}
	if data, err := os.ReadFile(filepath.Join(dir, name+".json")); err == nil {
		return data
	}
	f, err := os.Open(filepath.Join(dir, name+".json.gz"))
	if err != nil {
		need := os.Getenv("VALISE_REQUIRE")
		if !chosen && (strings.Contains(need, "vectors")) {
			t.Fatalf("vectors: %v", err)
		}
		t.Skipf("vectors: %s is not in %s", name, dir)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// vectors runs one file. Every vector is counted; one of a suite that this
// package lacks is skipped, and that is a failure for suites 1, 2, 5 and 7.
func vectors[V any](t *testing.T, name string, suite func(*V) Suite, run func(*testing.T, *V)) {
	var list []V
	if err := json.Unmarshal(vectorFile(t, name), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("file holds no vectors")
	}
	for i := range list {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var s Suite
			if suite != nil {
				s = suite(&list[i])
			}
			t.Parallel()
			t.Cleanup(func() { count(t, s) })
			if suite != nil && !s.Supported() {
				if slices.Contains([]Suite{1, 2, 5, 7}, s) {
					t.Fatalf("suite %d must be supported", s)
				}
				t.Skipf("vectors: suite %d", s)
			}
			run(t, &list[i])
		})
	}
}

func count(t *testing.T, s Suite) {
	tally.Lock()
	defer tally.Unlock()
	switch {
	case t.Failed():
		tally.failed++
	case t.Skipped():
		tally.skipped++
		return
	default:
		tally.passed++
	}
	if s != 0 {
		if tally.suites == nil {
			tally.suites = map[Suite]int{}
		}
		tally.suites[s]++
	}
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: got %.200x, want %.200x", what, got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// signerFrom decodes the private signature key of a vector.
func signerFrom(t *testing.T, s *suiteParams, priv []byte) crypto.Signer {
	t.Helper()
	if s.curve == nil {
		return ed25519.NewKeyFromSeed(priv)
	}
	size := (s.curve.Params().BitSize + 7) / 8
	for len(priv) > size && priv[0] == 0 {
		priv = priv[1:]
	}
	padded := append(make([]byte, max(0, size-len(priv))), priv...)
	k, err := ecdsa.ParseRawPrivateKey(s.curve, padded)
	must(t, err)
	return k
}

// kemKey pads a vector's private key: some lack their leading zeros.
func kemKey(s *suiteParams, priv []byte) []byte {
	if s.curve == nil {
		return priv
	}
	size := (s.curve.Params().BitSize + 7) / 8
	return append(make([]byte, max(0, size-len(priv))), priv...)
}

// trustAll approves every credential: the vectors' are arbitrary.
type trustAll struct{}

func (trustAll) Authenticate(Credential, []byte) error { return nil }

// identityMarshal fails unless data decodes and encodes to itself.
func identityMarshal[T any](t *testing.T, what string, data []byte, read func(*reader) T, write func(T) []byte) T {
	t.Helper()
	v, err := decode(data, read)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	equal(t, what, write(v), data)
	return v
}
