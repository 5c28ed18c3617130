// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/wire"
)

func content(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func measured(t *testing.T, data []byte) (*Plan, []byte) {
	t.Helper()
	src := bytes.NewReader(data)
	p, err := Measure(context.Background(), src, uint64(len(data)), Name{"report.pdf", "application/pdf"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var sealed bytes.Buffer
	if err := p.Write(context.Background(), src, &sealed, 0, nil); err != nil {
		t.Fatal(err)
	}
	return p, sealed.Bytes()
}

func from(sealed []byte) OpenFunc {
	return func(_ context.Context, offset uint64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(sealed[offset:])), nil
	}
}

func TestThereAndBack(t *testing.T) {
	for _, n := range []int{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 2 * ChunkSize, 3*ChunkSize + 7} {
		data := content(n)
		p, sealed := measured(t, data)
		if uint64(len(sealed)) != p.Reference.Size || sha256.Sum256(sealed) != p.Reference.Blob {
			t.Fatalf("%d bytes: the second pass differs from the first", n)
		}
		dir := t.TempDir()
		path, err := Fetch(context.Background(), &p.Reference, dir, from(sealed), nil)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, data) || filepath.Base(path) != "report.pdf" {
			t.Fatalf("%d bytes: %s differs, %v", n, path, err)
		}
		left, _ := os.ReadDir(dir)
		if len(left) != 1 {
			t.Fatalf("%d bytes: %d entries in the folder", n, len(left))
		}
	}
}

func TestUploadResumes(t *testing.T) {
	data := content(3*ChunkSize + 7)
	p, sealed := measured(t, data)
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if p, err = ParsePlan(raw); err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int{0, 1, ChunkSize, ChunkSize + overhead, 2*ChunkSize + 99, len(sealed) - 1, len(sealed)} {
		var rest bytes.Buffer
		if err := p.Write(context.Background(), bytes.NewReader(data), &rest, uint64(offset), nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rest.Bytes(), sealed[offset:]) {
			t.Fatalf("from %d: other bytes", offset)
		}
	}
}

// A changed source must not be sealed under nonces that were used: not one byte of
// the changed chunk may leave.
func TestSourceChanged(t *testing.T) {
	data := content(2*ChunkSize + 10)
	p, sealed := measured(t, data)
	flipped := bytes.Clone(data)
	flipped[ChunkSize+5] ^= 1
	for name, changed := range map[string][]byte{
		"flipped": flipped, "cut": data[:len(data)-1], "grown": append(bytes.Clone(data), 1),
	} {
		var out bytes.Buffer
		err := p.Write(context.Background(), bytes.NewReader(changed), &out, 0, nil)
		if !errors.Is(err, ErrSourceChanged) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.HasPrefix(sealed, out.Bytes()) {
			t.Errorf("%s: bytes left that differ from the measured ones", name)
		}
	}
	if err := p.Write(context.Background(), bytes.NewReader(data), io.Discard, 0, nil); err != nil {
		t.Errorf("the control: %v", err)
	}
}

func TestDownloadResumes(t *testing.T) {
	data := content(4*ChunkSize + 99)
	p, sealed := measured(t, data)
	dir := t.TempDir()
	broken := func(_ context.Context, offset uint64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(sealed[offset : 2*ChunkSize+1000])), nil
	}
	if _, err := Fetch(context.Background(), &p.Reference, dir, broken, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a broken download: %v", err)
	}
	var began uint64
	path, err := Fetch(context.Background(), &p.Reference, dir, func(ctx context.Context, offset uint64) (io.ReadCloser, error) {
		began = offset
		return from(sealed)(ctx, offset)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if began != 2*(ChunkSize+overhead) {
		t.Errorf("went on from %d", began)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, data) {
		t.Error("the file differs")
	}
}

// Chunks that were cut, swapped, repeated, extended or altered do not open; the
// same bytes untouched do.
func TestAlteredOnTheWay(t *testing.T) {
	data := content(3 * ChunkSize)
	p, sealed := measured(t, data)
	const step = ChunkSize + overhead
	swapped := append(append(bytes.Clone(sealed[step:2*step]), sealed[:step]...), sealed[2*step:]...)
	flipped := bytes.Clone(sealed)
	flipped[step+9] ^= 0x40
	repeated := append(append(bytes.Clone(sealed[:step]), sealed[:step]...), sealed[2*step:]...)
	for name, bad := range map[string][]byte{
		"swapped": swapped, "flipped": flipped, "repeated": repeated, "extended": append(bytes.Clone(sealed), 0),
	} {
		dir := t.TempDir()
		if _, err := Fetch(context.Background(), &p.Reference, dir, from(bad), nil); !errors.Is(err, ErrAltered) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: %v stays in the folder", name, left[0].Name())
		}
	}
	// A reference that calls the file shorter, over a cut ciphertext, meets a
	// chunk without the flag of the last one.
	short := p.Reference
	short.PlainSize, short.Size = 2*ChunkSize, 2*step
	if _, err := Fetch(context.Background(), &short, t.TempDir(), from(sealed[:2*step]), nil); !errors.Is(err, ErrAltered) {
		t.Errorf("truncated at a chunk: %v", err)
	}
	other := p.Reference
	other.PlainHash[0] ^= 1
	if _, err := Fetch(context.Background(), &other, t.TempDir(), from(sealed), nil); !errors.Is(err, ErrAltered) {
		t.Errorf("another hash: %v", err)
	}
	if _, err := Fetch(context.Background(), &p.Reference, t.TempDir(), from(sealed), nil); err != nil {
		t.Errorf("the control: %v", err)
	}
}

// A file cut at the end of a chunk has no last chunk: the flag tells, before any hash.
func TestLastChunkFlag(t *testing.T) {
	p, sealed := measured(t, content(2*ChunkSize))
	const step = ChunkSize + overhead
	receive := func(plain uint64, box []byte) error {
		c, err := newCutter(&p.Reference.Key, ChunkSize, plain)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.receive(context.Background(), bytes.NewReader(box), io.Discard, sha256.New(), 0, nil)
		return err
	}
	if err := receive(ChunkSize, sealed[:step]); !errors.Is(err, ErrAltered) {
		t.Errorf("the first of two chunks passed for a whole file: %v", err)
	}
	if err := receive(2*ChunkSize, sealed); err != nil {
		t.Errorf("the control: %v", err)
	}
}

func TestNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "report.pdf")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, sealed := measured(t, content(10))
	path, err := Fetch(context.Background(), &p.Reference, dir, from(sealed), nil)
	if err != nil || filepath.Base(path) != "report (1).pdf" {
		t.Fatalf("fetched to %s, %v", path, err)
	}
	if got, _ := os.ReadFile(mine); string(got) != "mine" {
		t.Fatal("an existing file was replaced")
	}
}

func TestPartMustBePlainFile(t *testing.T) {
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "target")
	p, sealed := measured(t, content(10))
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := Fetch(context.Background(), &p.Reference, t.TempDir(), from(sealed), nil)
	if err != nil || first == "" {
		t.Fatalf("the control: %v", err)
	}
	part := ".valise-" + hexPrefix(&p.Reference) + ".part"
	if err := os.Symlink(elsewhere, filepath.Join(dir, part)); err != nil {
		t.Fatal(err)
	}
	if _, err := Fetch(context.Background(), &p.Reference, dir, from(sealed), nil); err == nil {
		t.Fatal("a link in the place of the unfinished file was followed")
	}
}

func hexPrefix(ref *wire.FileReference) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, b := range ref.Blob[:8] {
		s.WriteByte(digits[b>>4])
		s.WriteByte(digits[b&15])
	}
	return s.String()
}

func TestCheckReference(t *testing.T) {
	good := wire.FileReference{Size: 10 + overhead, PlainSize: 10, ChunkSize: ChunkSize}
	if err := Check(&good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*wire.FileReference){
		"size": func(r *wire.FileReference) { r.Size++ }, "tiny chunk": func(r *wire.FileReference) { r.ChunkSize = 1 },
		"huge chunk": func(r *wire.FileReference) { r.ChunkSize = 1 << 30 },
		"huge file":  func(r *wire.FileReference) { r.PlainSize = MaxSize + 1 },
	} {
		bad := good
		change(&bad)
		if Check(&bad) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"report.pdf": "report.pdf", "Überweisung – Mai.ods": "Überweisung – Mai.ods",
		"../../etc/passwd": "_.._.._etc_passwd", `C:\x`: "C__x", ".bashrc": "_.bashrc", "": "file", "..": "file",
		"a\x00b": "a_b", "invoice\u202Efdp.exe": "invoice_fdp.exe", "con.txt": "_con.txt", "x. ": "x", "-rf": "_-rf", "\xff": "_",
	} {
		if got := CleanName(in); got != want {
			t.Errorf("CleanName(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"a.txt", "../x", "\u202e", strings.Repeat("ä", 300), "nul.", "\xff\xfe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := CleanName(name)
		if got == "" || len(got) > maxName+1 || got[0] == '.' || strings.ContainsAny(got, "/\\\x00") || filepath.Base(got) != got {
			t.Fatalf("CleanName(%q) = %q", name, got)
		}
	})
}

// Whatever bytes arrive in place of the ciphertext, nothing but the file comes out.
func FuzzReceive(f *testing.F) {
	data := content(3000)
	var key [32]byte
	c, _ := newCutter(&key, minChunk, uint64(len(data)))
	var sealed []byte
	c.each(context.Background(), bytes.NewReader(data), 0, func(_ uint64, _, box []byte) error {
		sealed = append(sealed, box...)
		return nil
	})
	f.Add(sealed)
	f.Add(sealed[:1040])
	f.Add(append(bytes.Clone(sealed), 1))
	f.Fuzz(func(t *testing.T, box []byte) {
		var out bytes.Buffer
		_, err := c.receive(context.Background(), bytes.NewReader(box), &out, sha256.New(), 0, nil)
		if err == nil && !bytes.Equal(box, sealed) {
			t.Fatal("other bytes than the sealed ones were accepted")
		}
		if !bytes.HasPrefix(data, out.Bytes()) {
			t.Fatal("bytes came out that are not the file's")
		}
	})
}

func FuzzParsePlan(f *testing.F) {
	p := &Plan{Reference: wire.FileReference{Size: 26, PlainSize: 10, ChunkSize: ChunkSize}, Digests: [][]byte{make([]byte, 16)}}
	raw, _ := p.Marshal()
	f.Add(raw)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := ParsePlan(data); err == nil && Check(&p.Reference) != nil {
			t.Fatal("a plan with an invalid reference was accepted")
		}
	})
}
