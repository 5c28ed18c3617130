// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/internal/testenv"
)

// damage says which value of a file's vector is spoilt, so that the vector is
// wrong though it is a vector still.
var damage = map[string]string{
	"crypto-basics":                  "encrypt_with_label.plaintext",
	"deserialization":                "length",
	"key-schedule":                   "epochs.0.epoch_authenticator",
	"message-protection":             "application",
	"messages":                       "commit",
	"passive-client-handling-commit": "epochs.0.epoch_authenticator",
	"passive-client-welcome":         "initial_epoch_authenticator",
	"psk_secret":                     "psk_secret",
	"secret-tree":                    "leaves.0.0.application_key",
	"transcript-hashes":              "interim_transcript_hash_after",
	"tree-math":                      "root",
	"tree-operations":                "tree_hash_after",
	"tree-validation":                "tree_hashes.0",
	"treekem":                        "update_paths.0.commit_secret",
	"welcome":                        "signer_pub",
}

// vectorsOf returns the first n vectors of a published file.
func vectorsOf(t *testing.T, name string, n int) []any {
	t.Helper()
	f, err := os.Open(testenv.Vectors(t, "mls", name+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(z)
	d.UseNumber()
	var all []any
	if err := d.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all[:n]
}

// spoil changes the value at a path of keys and indexes: a number grows by
// one, a text of hexadecimal digits gets another last digit.
func spoil(t *testing.T, v any, path []string) any {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		v[path[0]] = spoil(t, v[path[0]], path[1:])
	case []any:
		v[0] = spoil(t, v[0], path[1:]) // paths name no other index
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			t.Fatal(err)
		}
		return json.Number(fmt.Sprint(n + 1))
	case string:
		last := map[bool]string{true: "1", false: "0"}[strings.HasSuffix(v, "0")]
		return v[:len(v)-1] + last
	default:
		t.Fatalf("there is no value at %q", path)
	}
	return v
}

func write(t *testing.T, dir, name string, vectors []any) {
	t.Helper()
	data, err := json.Marshal(vectors)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(data)
		z.Close()
		data = b.Bytes()
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// verdict runs a folder and compares the last line.
func verdict(t *testing.T, dir, want string) string {
	t.Helper()
	var out bytes.Buffer
	ok, err := run(t.Context(), &out, dir)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if got := lines[len(lines)-1]; got != "mls vectors: "+want {
		t.Errorf("got %q, want %q\n%s", got, want, out.String())
	}
	if good := strings.Contains(want, " 0 failed") && !strings.HasPrefix(want, "0 passed"); ok != good {
		t.Errorf("verdict %v after %q", ok, want)
	}
	return out.String()
}

// Of each published file, one vector as it is and one that is wrong: exactly the
// wrong ones are counted as failed.
func TestDamagedVectorsFail(t *testing.T) {
	honest, damaged := t.TempDir(), t.TempDir()
	for name, path := range damage {
		v := vectorsOf(t, name, 2)
		write(t, honest, name+".json.gz", v)
		v[1] = spoil(t, v[1], strings.Split(path, "."))
		write(t, damaged, name+".json", v)
	}
	n := len(damage)
	verdict(t, honest, fmt.Sprintf("%d passed, 0 failed, 0 skipped (suites 1, 2)", 2*n))
	verdict(t, damaged, fmt.Sprintf("%d passed, %d failed, 0 skipped (suites 1, 2)", n, n))
}

// A folder may hold any subset; what is no such file, or cannot be read, fails.
func TestFolders(t *testing.T) {
	one := vectorsOf(t, "tree-math", 1)
	t.Run("one file", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "tree-math.json", one)
		if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		verdict(t, dir, "1 passed, 0 failed, 0 skipped (suites none)")
	})
	t.Run("random groups", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "passive-client-random.json", vectorsOf(t, "passive-client-handling-commit", 2))
		verdict(t, dir, "2 passed, 0 failed, 0 skipped (suites 1)")
	})
	t.Run("suites of others", func(t *testing.T) {
		dir := t.TempDir()
		v := vectorsOf(t, "psk_secret", 3)
		v[1].(map[string]any)["cipher_suite"] = 3
		v[2].(map[string]any)["cipher_suite"] = 99
		write(t, dir, "psk_secret.json", v)
		verdict(t, dir, "1 passed, 1 failed, 1 skipped (suites 1, 99)")
	})
	t.Run("unknown name", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "tree-math.json", one)
		write(t, dir, "tree-maths.json", one)
		out := verdict(t, dir, "1 passed, 1 failed, 0 skipped (suites none)")
		if !strings.Contains(out, "tree-maths.json is not a file of the working group's vectors") {
			t.Error(out)
		}
	})
	t.Run("no JSON", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "welcome.json"), []byte("[{"), 0o600); err != nil {
			t.Fatal(err)
		}
		verdict(t, dir, "0 passed, 1 failed, 0 skipped (suites none)")
	})
	t.Run("empty", func(t *testing.T) {
		verdict(t, t.TempDir(), "0 passed, 0 failed, 0 skipped (suites none)")
	})
	t.Run("missing", func(t *testing.T) {
		verdict(t, filepath.Join(t.TempDir(), "nowhere"), "0 passed, 1 failed, 0 skipped (suites none)")
	})
}

// A vector whose test never ended has failed, and so has a build that did.
func TestUnfinishedIsFailed(t *testing.T) {
	for name, c := range map[string]struct {
		events, want string
		unhappy      bool
	}{
		"panic": {
			`{"Action":"run","Test":"TestVectorsWelcome"}` + "\n" + `{"Action":"run","Test":"TestVectorsWelcome/0-suite-2"}` + "\n" +
				`{"Action":"output","Package":"p","Output":"panic: no\n"}` + "\n",
			"mls vectors: 0 passed, 1 failed, 0 skipped (suites 2)", true,
		},
		"build": {`{"Action":"build-output","Output":"no\n"}` + "\n", "mls vectors: 0 passed, 1 failed, 0 skipped (suites none)", true},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			counter := newCount(&out)
			if err := counter.follow(strings.NewReader(c.events)); err != nil {
				t.Fatal(err)
			}
			if counter.summary(c.unhappy) || !strings.HasSuffix(out.String(), c.want+"\n") {
				t.Error(out.String())
			}
		})
	}
}
