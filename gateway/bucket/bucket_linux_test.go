// SPDX-License-Identifier: Apache-2.0

package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"valise/gateway/blob"
	"valise/internal/testenv"
)

func open(t *testing.T, s *testenv.ObjectStore, change func(*Config)) *Bucket {
	t.Helper()
	cfg := Config{Endpoint: s.Endpoint, Bucket: s.Bucket, Prefix: "files", Access: s.Access, Secret: s.Secret, Roots: s.Roots}
	if change != nil {
		change(&cfg)
	}
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func content(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(data)
	return data
}

func arriving(t *testing.T, b *Bucket, name string, size, have uint64, progress []byte) *draftIn {
	t.Helper()
	d, err := b.Draft(t.Context(), name, size, have, progress)
	if err != nil {
		t.Fatal(err)
	}
	return &draftIn{d, t}
}

type draftIn struct {
	blob.Draft
	t *testing.T
}

func (d *draftIn) write(data []byte) {
	d.t.Helper()
	if n, err := d.Write(data); err != nil || n != len(data) {
		d.t.Fatal(n, err)
	}
}

func (d *draftIn) save() (uint64, []byte) {
	d.t.Helper()
	have, progress, err := d.Save(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return have, progress
}

func (d *draftIn) commit() {
	d.t.Helper()
	if err := errors.Join(d.Commit(d.t.Context()), d.Close()); err != nil {
		d.t.Fatal(err)
	}
}

func read(t *testing.T, b *Bucket, name string, offset, size uint64) []byte {
	t.Helper()
	body, err := b.Open(t.Context(), name, offset, size)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func uploads(t *testing.T, b *Bucket) int {
	t.Helper()
	page, err := b.core.ListMultipartUploads(t.Context(), b.name, "", "", "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	return len(page.Uploads)
}

// On somebody else's server: files of one piece and of several, gone on with after a crash
// of gateway or store, by another gateway, and deleted with what nobody will finish.
func TestBucket(t *testing.T) {
	s := testenv.Objects(t)
	b := open(t, s, nil)

	t.Run("small", func(t *testing.T) {
		data := content(1000)
		d := arriving(t, b, "small", 1000, 0, nil)
		d.write(data)
		if have, progress := d.save(); have != 0 || progress != nil {
			t.Errorf("%d bytes of a piece that is not full", have)
		}
		if there, err := b.Has(t.Context(), "small", 1000); there || err != nil {
			t.Errorf("before it is whole: %v, %v", there, err)
		}
		d.commit()
		if got := read(t, b, "small", 0, 1000); !bytes.Equal(got, data) {
			t.Error("the file differs")
		}
		if got := read(t, b, "small", 999, 1000); !bytes.Equal(got, data[999:]) {
			t.Error("its last byte differs")
		}
		if got := read(t, b, "small", 1000, 1000); len(got) != 0 {
			t.Error("there is something behind its end")
		}
		if there, err := b.Has(t.Context(), "small", 1001); there || err != nil {
			t.Errorf("with another size: %v, %v", there, err)
		}
		for range 2 {
			if err := b.Delete(t.Context(), "small"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Open(t.Context(), "small", 0, 1000); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("after it was deleted: %v", err)
		}
	})

	data := content(2*blob.Piece + 100)
	size := uint64(len(data))
	first := func(t *testing.T, name string) (have uint64, progress []byte) {
		d := arriving(t, b, name, size, 0, nil)
		d.write(data[:blob.Piece+50])
		have, progress = d.save()
		if have != blob.Piece {
			t.Fatalf("%d bytes are persisted", have)
		}
		_ = d.Close()
		return have, progress
	}

	t.Run("large", func(t *testing.T) {
		have, progress := first(t, "large")
		s.Kill() // the store loses nothing that it has acknowledged
		lost, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := b.Draft(lost, "large", size, have, progress); err == nil {
			t.Error("an upload goes on in a store that is away")
		}
		cancel()
		s.Start()
		other := open(t, s, nil)
		d := arriving(t, other, "large", size, have, progress)
		if d.Offset() != have {
			t.Fatalf("it goes on at %d, not at %d", d.Offset(), have)
		}
		d.write(data[have:])
		if have, progress = d.save(); have != size {
			t.Fatalf("%d of %d bytes are persisted", have, size)
		}
		d.commit()
		if got := read(t, b, "large", blob.Piece-3, size); !bytes.Equal(got, data[blob.Piece-3:]) {
			t.Error("the file differs")
		}
		// The gateway died right after that: nothing has to come again.
		d = arriving(t, b, "large", size, have, progress)
		if d.Offset() != size {
			t.Errorf("a whole file goes on at %d", d.Offset())
		}
		d.commit()
		if err := b.Delete(t.Context(), "large"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("altered", func(t *testing.T) {
		have, progress := first(t, "altered")
		if d := arriving(t, b, "altered", size, have, progress); d.Offset() != have {
			t.Errorf("the control goes on at %d", d.Offset())
		}
		st, err := parseState(progress)
		if err != nil {
			t.Fatal(err)
		}
		other := content(blob.Piece - 1)
		other = append(other, 1)
		if _, err := b.core.PutObjectPart(t.Context(), b.name, b.key("altered"), st.upload, 1, bytes.NewReader(other), blob.Piece, minio.PutObjectPartOptions{}); err != nil {
			t.Fatal(err)
		}
		if d := arriving(t, b, "altered", size, have, progress); d.Offset() != 0 {
			t.Errorf("a piece that was exchanged was taken: it goes on at %d", d.Offset())
		}
		if n := uploads(t, b); n != 0 {
			t.Errorf("%d uploads are left of it", n)
		}
	})

	t.Run("left over", func(t *testing.T) {
		first(t, "left")
		first(t, "lefty")
		if err := b.Delete(t.Context(), "left"); err != nil {
			t.Fatal(err)
		}
		if n := uploads(t, b); n != 1 {
			t.Errorf("%d uploads where one belongs to another file", n)
		}
		for _, c := range []struct {
			after time.Duration
			left  int
		}{{staleAfter - time.Hour, 1}, {staleAfter + time.Hour, 0}} {
			if err := b.Sweep(t.Context(), time.Now().Add(c.after)); err != nil {
				t.Fatal(err)
			}
			if n := uploads(t, b); n != c.left {
				t.Errorf("after %v there are %d uploads, want %d", c.after, n, c.left)
			}
		}
	})

	t.Run("bounded", func(t *testing.T) {
		one := open(t, s, func(c *Config) { c.Uploads = 1 })
		d := arriving(t, one, "a", 10, 0, nil)
		if _, err := one.Draft(t.Context(), "b", 10, 0, nil); !errors.Is(err, blob.ErrBusy) {
			t.Errorf("more uploads than there may be: %v", err)
		}
		_ = d.Close()
		_ = d.Close()
		_ = arriving(t, one, "b", 10, 0, nil).Close()
	})

	t.Run("refused", func(t *testing.T) {
		for name, change := range map[string]func(*Config){
			"another key":        func(c *Config) { c.Secret = strings.Repeat("x", 20) },
			"another bucket":     func(c *Config) { c.Bucket = "other" },
			"an unknown issuer":  func(c *Config) { c.Roots = nil },
			"http elsewhere":     func(c *Config) { c.Endpoint = "http://s3.example:9000" },
			"a path":             func(c *Config) { c.Endpoint += "/valise" },
			"no credentials":     func(c *Config) { c.Access = "" },
			"a name and no port": func(c *Config) { c.Endpoint = "s3.example" },
		} {
			cfg := Config{Endpoint: s.Endpoint, Bucket: s.Bucket, Access: s.Access, Secret: s.Secret, Roots: s.Roots}
			change(&cfg)
			if _, err := Open(t.Context(), cfg); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})

	// Nothing but objects under names of ours is left.
	left, err := filepath.Glob(filepath.Join(s.Dir, "files", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(s.Dir); err != nil {
		t.Error(err)
	}
}

// Whatever lies in a record, only what marshals to the same bytes is a state.
func FuzzState(f *testing.F) {
	good, err := (&state{upload: "u", pieces: 3, chain: [32]byte{7}}).marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:5])
	f.Add([]byte{})
	f.Add([]byte{1, 0, 1, 'u', 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		if again, err := s.marshal(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x became %x, %v", data, again, err)
		}
	})
}
