// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

var update = flag.Bool("update", false, "write spec/vectors/ledger.json anew")

// vectors is spec/vectors/ledger.json. All bytes are in hex.
type vectors struct {
	Verifier    string            `json:"verifier"` // the log's verifier key
	Entries     []vectorEntry     `json:"entries"`
	Heads       []string          `json:"heads"` // root of the first 0, 1, 2 … leaves
	Checkpoint  string            `json:"checkpoint"`
	Subject     string            `json:"subject"`   // of what is proved
	Inclusion   string            `json:"inclusion"` // in the checkpoint's tree
	Sized       string            `json:"sized"`     // in the tree of Size leaves
	Size        int64             `json:"size"`
	Growth      string            `json:"growth"` // from Size leaves
	Refused     map[string]string `json:"refused"`
	Checkpoints map[string]string `json:"refused_checkpoints"`
}

type vectorEntry struct {
	Payload string `json:"payload"`
	Entry   string `json:"entry"`
	Leaf    string `json:"leaf"`
}

// makeVectors computes everything anew; Ed25519 signs the same twice (RFC 8032,
// Section 5.1.6).
func makeVectors(t *testing.T) *vectors {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x42}, ed25519.SeedSize))
	v := &vectors{Verifier: VerifierKey(origin, key.Public().(ed25519.PublicKey)), Size: 5, Refused: make(map[string]string), Checkpoints: make(map[string]string)}
	verifier, err := note.NewVerifier(v.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	list := items(t, 11)
	for i := range list {
		for j := range list[i].Entry.Salt {
			list[i].Entry.Salt[j] = byte(16*i + j)
		}
	}
	list[10].Entry.Kind, list[10].Entry.Time = KindIssuance, time.Time{} // version 1
	for i, item := range list {
		leaf := item.Entry.Leaf()
		v.Entries = append(v.Entries, vectorEntry{hex.EncodeToString(item.Payload), hex.EncodeToString(item.Entry.Marshal()), hex.EncodeToString(leaf[:])})
		hash := headOf(t, list[:i]).Hash
		v.Heads = append(v.Heads, hex.EncodeToString(hash[:]))
	}
	hash := headOf(t, list).Hash
	v.Heads = append(v.Heads, hex.EncodeToString(hash[:]))
	text := checkpoint(t, key, headOf(t, list))
	dir := filepath.Join(t.TempDir(), "copy")
	if err := WriteCopy(dir, text, seq(list)); err != nil {
		t.Fatal(err)
	}
	c, err := OpenCopy(dir)
	if err != nil {
		t.Fatal(err)
	}
	src := found{c, list, nil}
	subject := list[3].Entry.Subject
	newest, err := Prove(t.Context(), src, subject, 0)
	if err != nil {
		t.Fatal(err)
	}
	sized, err := Prove(t.Context(), src, subject, v.Size)
	if err != nil {
		t.Fatal(err)
	}
	growth, err := Grow(t.Context(), src, v.Size)
	if err != nil {
		t.Fatal(err)
	}
	v.Checkpoint, v.Subject = string(text), hex.EncodeToString(subject[:])
	v.Inclusion, v.Sized, v.Growth = hex.EncodeToString(newest.Marshal()), hex.EncodeToString(sized.Marshal()), hex.EncodeToString(growth.Marshal())
	entry := v.Entries[0].Entry
	v.Refused["an entry of version 3"] = "03" + entry[2:]
	v.Refused["an entry of kind 5"] = entry[:2] + "05" + entry[4:]
	v.Refused["an entry without a time"] = entry[:4] + "0000000000000000" + entry[20:]
	v.Refused["an entry with a byte too many"] = entry + "00"
	v.Refused["a statement of version 1"] = "0102" + v.Entries[10].Entry[4:]
	body, _, _ := strings.Cut(v.Checkpoint, "\n\n")
	for name, forged := range map[string]string{
		"a leading zero":    strings.Replace(body, "\n11\n", "\n011\n", 1) + "\n",
		"an extension line": body + "\nmore\n",
		"another log":       "b.example/valise" + strings.TrimPrefix(body, origin) + "\n",
	} {
		signed, err := note.Sign(&note.Note{Text: forged}, noteSigner{verifier, key})
		if err != nil {
			t.Fatal(err)
		}
		v.Checkpoints[name] = string(signed)
	}
	v.Checkpoints["another size under the same signature"] = strings.Replace(v.Checkpoint, "\n11\n", "\n12\n", 1)
	return v
}

// The published vectors are what this code makes, and hold.
func TestVectors(t *testing.T) {
	path := filepath.Join("..", "spec", "vectors", "ledger.json")
	made, err := json.MarshalIndent(makeVectors(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	made = append(made, '\n')
	if *update {
		if err := os.WriteFile(path, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	published, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, made) {
		t.Errorf("%s is not what this code makes; -update writes it", path)
	}
	var v vectors
	if err := json.Unmarshal(published, &v); err != nil {
		t.Fatal(err)
	}
	checkVectors(t, &v)
}

// checkVectors reads the vectors as a stranger would.
func checkVectors(t *testing.T, v *vectors) {
	verifier, err := note.NewVerifier(v.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	var tree Builder
	var heads []Head
	for i, e := range v.Entries {
		heads = append(heads, tree.Head())
		entry, err := ParseEntry(unhex(t, e.Entry))
		if err != nil {
			t.Fatal(err)
		}
		leaf := entry.Leaf()
		if !entry.Records(unhex(t, e.Payload)) || hex.EncodeToString(leaf[:]) != e.Leaf {
			t.Errorf("entry %d is of something else", i)
		}
		if err := tree.Add(leaf); err != nil {
			t.Fatal(err)
		}
	}
	heads = append(heads, tree.Head())
	for i, h := range heads {
		if got := fmt.Sprintf("%x", h.Hash[:]); got != v.Heads[i] {
			t.Errorf("root of %d leaves %s, want %s", i, got, v.Heads[i])
		}
	}
	if h, err := OpenCheckpoint([]byte(v.Checkpoint), verifier); err != nil || h != tree.Head() {
		t.Errorf("checkpoint: %v, %v", h, err)
	}
	newest, errN := ParseInclusion(unhex(t, v.Inclusion))
	sized, errS := ParseInclusion(unhex(t, v.Sized))
	growth, errG := ParseGrowth(unhex(t, v.Growth))
	if errN != nil || errS != nil || errG != nil {
		t.Fatal(errN, errS, errG)
	}
	subject := [32]byte(unhex(t, v.Subject))
	if _, err := newest.Check(subject, verifier); err != nil {
		t.Error(err)
	}
	if err := sized.CheckIn(heads[v.Size], subject); err != nil {
		t.Error(err)
	}
	if _, err := growth.Check(heads[v.Size], verifier); err != nil {
		t.Error(err)
	}
	for name, data := range v.Refused {
		if _, err := ParseEntry(unhex(t, data)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	for name, text := range v.Checkpoints {
		if _, err := OpenCheckpoint([]byte(text), verifier); err == nil {
			t.Errorf("a checkpoint with %s is taken", name)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	data, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
