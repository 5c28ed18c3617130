// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/gateway/blob"
	"valise/gateway/bucket"
	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// nodes are two gateways' files: one database, one place, a clock.
type nodes struct {
	t     *testing.T
	a, b  *blob.Store
	ahead atomic.Int64  // of the clock, in seconds
	ended atomic.Int64  // files that either has ended
	left  func() int    // objects in the place
	db    mailbox.Store // with group "g" of devices 1, who brings, and 2
}

func newNodes(t *testing.T, open func(*testing.T) (a, b blob.Place, left func() int)) *nodes {
	t.Helper()
	db, err := relay.Open(t.Context(), relay.Config{Path: filepath.Join(t.TempDir(), "relay.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for i := range 2 {
		a := mailbox.Arrival{Device: mailbox.Device{byte(i + 1)}, Address: "a@x.example", Chain: [][]byte{{1}}, Incarnation: [16]byte{1}, Begin: true, Time: time.Now()}
		if _, err := db.Arrive(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Apply(t.Context(), []*mailbox.Submission{{
		Device: mailbox.Device{1}, Incarnation: [16]byte{1}, Counter: 1, Time: time.Now(),
		Step: &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("i"), Joined: []mailbox.Device{{1}, {2}}},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	n := &nodes{t: t, db: db}
	one, two, left := open(t)
	n.left = left
	for at, place := range map[**blob.Store]blob.Place{&n.a: one, &n.b: two} {
		s, err := blob.Open(blob.Config{
			Place: place, Store: db, Shared: true, Expiry: 24 * time.Hour, Now: n.now,
			Ended: func(mailbox.Blob) { n.ended.Add(1) },
		})
		if err != nil {
			t.Fatal(err)
		}
		*at = s
	}
	return n
}

func (n *nodes) now() time.Time { return time.Now().Add(time.Duration(n.ahead.Load()) * time.Second) }

func (n *nodes) put(s *blob.Store, up blob.Upload) *blob.Writer {
	n.t.Helper()
	w, err := s.Put(n.t.Context(), up)
	if err != nil {
		n.t.Fatal(err)
	}
	return w
}

func (n *nodes) get(s *blob.Store, up blob.Upload) []byte {
	n.t.Helper()
	f, err := s.Get(n.t.Context(), up.ID, func([]byte) bool { return true })
	if err != nil {
		n.t.Fatal(err)
	}
	body, err := f.From(n.t.Context(), 5)
	if err != nil {
		n.t.Fatal(err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		n.t.Fatal(err)
	}
	return got
}

func (n *nodes) gone(s *blob.Store, up blob.Upload) {
	n.t.Helper()
	if _, err := s.Get(n.t.Context(), up.ID, func([]byte) bool { return true }); !errors.Is(err, blob.ErrNotFound) {
		n.t.Errorf("the file is still to be had: %v", err)
	}
}

func fileOf(seed byte, size int) ([]byte, blob.Upload) {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data, blob.Upload{ID: sha256.Sum256(data), Group: []byte("g"), Size: uint64(size), Owner: mailbox.Device{1}}
}

// A common folder, opened twice, and a bucket of somebody else's server, by two clients.
func TestNodesShareFiles(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		testNodes(t, newNodes(t, func(t *testing.T) (blob.Place, blob.Place, func() int) {
			dir := t.TempDir()
			var both [2]blob.Place
			for i := range both {
				f, err := blob.OpenFolder(blob.FolderConfig{Dir: dir, Shared: true})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = f.Close() })
				both[i] = f
			}
			return both[0], both[1], func() int { return count(t, dir) }
		}))
	})
	t.Run("bucket", func(t *testing.T) {
		objects := testenv.Objects(t)
		testNodes(t, newNodes(t, func(t *testing.T) (blob.Place, blob.Place, func() int) {
			var both [2]blob.Place
			for i := range both {
				b, err := bucket.Open(t.Context(), bucket.Config{
					Endpoint: objects.Endpoint, Bucket: objects.Bucket, Prefix: "f", Access: objects.Access, Secret: objects.Secret, Roots: objects.Roots,
				})
				if err != nil {
					t.Fatal(err)
				}
				both[i] = b
			}
			return both[0], both[1], func() int { return count(t, filepath.Join(objects.Dir, "f")) }
		}))
	})
}

func count(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(list)
}

func testNodes(t *testing.T, n *nodes) {
	const saved = 2 * blob.Piece
	data, up := fileOf(1, saved+1000)

	// One gateway dies with a part of the file; another one goes on when its claim is over.
	dead := n.put(n.a, up)
	if err := dead.Append(data[:saved+10]); err != nil {
		t.Fatal(err)
	}
	if _, err := n.b.Put(t.Context(), up); !errors.Is(err, blob.ErrBusy) {
		t.Fatalf("two gateways write one file: %v", err)
	}
	n.ahead.Add(600)
	w := n.put(n.b, up)
	if w.Offset() != saved {
		t.Fatalf("the other gateway goes on at %d, want %d", w.Offset(), saved)
	}
	if err := w.Append(data[saved:]); err != nil {
		t.Fatal(err)
	}
	if err := dead.Finish(); err == nil {
		t.Error("the gateway that was given up has finished the file")
	}
	if err := errors.Join(w.Finish(), w.Close()); err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	for _, s := range []*blob.Store{n.a, n.b} {
		if got := n.get(s, up); !bytes.Equal(got, data[5:]) {
			t.Fatalf("%d bytes, or others", len(got))
		}
		w := n.put(s, up)
		if w.Offset() != up.Size {
			t.Errorf("brought again it goes on at %d", w.Offset())
		}
		_ = w.Close()
	}

	// The last recipient is at one gateway, and the file is gone from both.
	if err := errors.Join(n.a.Done(t.Context(), up.ID, mailbox.Device{1}), n.b.Done(t.Context(), up.ID, mailbox.Device{2})); err != nil {
		t.Fatal(err)
	}
	n.gone(n.a, up)
	if n.ended.Load() != 1 || n.left() != 0 {
		t.Errorf("%d ends, %d objects are left", n.ended.Load(), n.left())
	}

	// What expires is ended by one of them, and a crash after that leaves nothing lying.
	data, up = fileOf(2, 1000)
	w = n.put(n.a, up)
	if err := errors.Join(w.Append(data), w.Finish(), w.Close()); err != nil {
		t.Fatal(err)
	}
	half, unfinished := fileOf(3, 5000)
	w = n.put(n.b, unfinished)
	if err := errors.Join(w.Append(half[:100]), w.Close()); err != nil {
		t.Fatal(err)
	}
	n.ahead.Add(int64(8 * 24 * time.Hour / time.Second))
	var both sync.WaitGroup
	for _, s := range []*blob.Store{n.a, n.b} {
		both.Go(func() {
			if err := s.Expire(context.WithoutCancel(t.Context()), n.now()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	n.gone(n.b, up)
	if n.ended.Load() != 3 || n.left() != 0 {
		t.Errorf("%d ends, %d objects are left", n.ended.Load(), n.left())
	}

	// It is brought again, in another life.
	w = n.put(n.b, up)
	if w.Offset() != 0 {
		t.Errorf("what expired goes on at %d", w.Offset())
	}
	if err := errors.Join(w.Append(data), w.Finish(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := n.a.Expire(t.Context(), n.now()); err != nil {
		t.Fatal(err)
	}
	if got := n.get(n.a, up); !bytes.Equal(got, data[5:]) {
		t.Error("the file differs")
	}
}
