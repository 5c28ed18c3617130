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
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The MLS working group's vectors. They are not part of this repository:
// MLS_VECTORS names their folder, or VALISE_VECTORS the folder above it.

// `make vectors` counts them; see internal/mlsvectors.

// published names the files of the working group's test-vectors folder.
var published = []string{
	"crypto-basics", "deserialization", "key-schedule", "message-protection", "messages",
	"passive-client-handling-commit", "passive-client-random", "passive-client-welcome", "psk_secret", "secret-tree",
	"transcript-hashes", "tree-math", "tree-operations", "tree-validation", "treekem", "welcome",
}

// unsupported are suites of RFC 9420, Section 17.1 that this package does not
// have: X448, Ed448 and ChaCha20-Poly1305 are not in the standard library.
var unsupported = []Suite{3, 4, 6}

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

// vectorDir is the folder of the vectors, and whether MLS_VECTORS chose it.
func vectorDir() (dir string, chosen bool) {
	if dir := os.Getenv("MLS_VECTORS"); dir != "" {
		return dir, true
	}
	dir = os.Getenv("VALISE_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "vectors")
	}
	return filepath.Join(dir, "mls"), false
}

// vectorFile reads NAME.json or NAME.json.gz, or skips the test: MLS_VECTORS
// may hold any subset.
func vectorFile(t *testing.T, name string) []byte {
	t.Helper()
	if !slices.Contains(published, name) {
		t.Fatalf("%s is missing in the list of published files", name)
	}
	dir, chosen := vectorDir()
	path := filepath.Join(dir, name+".json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		path += ".gz"
		data, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if !chosen && strings.Contains(os.Getenv("VALISE_REQUIRE"), "vectors") {
			t.Fatalf("vectors: %v", err)
		}
		t.Skipf("vectors: %s is not in %s", name, dir)
	}
	must(t, err)
	if !strings.HasSuffix(path, ".gz") {
		return data
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		data, err = io.ReadAll(z)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return data
}

// A file that no test reads must not be taken for one that passed.
func TestVectorsFolder(t *testing.T) {
	dir, chosen := vectorDir()
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && !chosen && !strings.Contains(os.Getenv("VALISE_REQUIRE"), "vectors") {
		t.Skipf("vectors: there is no folder %s", dir)
	}
	must(t, err)
	seen := make(map[string]bool)
	for _, f := range files {
		name, packed := strings.CutSuffix(f.Name(), ".gz")
		name, plain := strings.CutSuffix(name, ".json")
		switch {
		case !plain && !packed:
			continue
		case !plain || !slices.Contains(published, name):
			t.Errorf("%s is not a file of the working group's vectors that is known here; known are %s, as .json or .json.gz",
				filepath.Join(dir, f.Name()), strings.Join(published, ", "))
		case seen[name]:
			t.Errorf("%s is there twice, packed and not", filepath.Join(dir, name))
		}
		seen[name] = true
	}
}

// vectors runs one file, each of its vectors as a subtest that is named by its
// number and its suite, "12-suite-7". One of a suite that this package does not
// have is skipped.
func vectors[V any](t *testing.T, name string, suite func(*V) Suite, run func(*testing.T, *V)) {
	var list []json.RawMessage
	if err := json.Unmarshal(vectorFile(t, name), &list); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(list) == 0 {
		t.Fatalf("%s holds no vectors", name)
	}
	for i, data := range list {
		var v V
		err := json.Unmarshal(data, &v)
		label := fmt.Sprint(i)
		if suite != nil {
			label += fmt.Sprintf("-suite-%d", suite(&v))
		}
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			must(t, err)
			if suite != nil && slices.Contains(unsupported, suite(&v)) {
				t.Skipf("vectors: suite %d", suite(&v))
			}
			run(t, &v)
		})
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
