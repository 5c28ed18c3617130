// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

func randomFile(t *testing.T, n int) (string, []byte) {
	t.Helper()
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(data)
	path := filepath.Join(t.TempDir(), "report.bin")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func (d *device) fileEvent() *Event {
	for _, ev := range d.all() {
		if ev.Kind == EventFile && !ev.Outgoing {
			return &ev
		}
	}
	return nil
}

// A file survives restarts of the sender's engine and of the gateway in the middle of
// its upload, and arrives once and whole.
func TestFileSurvivesRestarts(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "a file follows")
	var left atomic.Int64
	left.Store(40)
	alice.setCrash(func(point string) error {
		if point == "upload" && left.Add(-1) < 0 {
			return errKilled
		}
		return nil
	})
	path, data := randomFile(t, 24<<20)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	id, err := alice.SendFile(ctx, Draft{Conversation: conv}, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-alice.ended // stopped in the middle
	alice.ended <- nil
	stopped := make(chan struct{})
	alice.crash = func(point string) error {
		if left.Add(-1) == 0 && point == "upload" {
			go func() { w.stop(); close(stopped) }()
		}
		return nil
	}
	left.Store(30)
	alice.restart()
	<-stopped
	w.start()
	if err := alice.Wait(ctx, id); err != nil {
		t.Fatal(err)
	}
	bob.until("hears of the file", func() bool { return bob.fileEvent() != nil })
	dir := t.TempDir()
	first, err := bob.Fetch(ctx, bob.fileEvent().Cursor, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := bob.Fetch(ctx, bob.fileEvent().Cursor, dir, nil)
	if err != nil || again != first {
		t.Fatalf("fetched again to %s, %v", again, err)
	}
	got, err := os.ReadFile(first)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the file differs, %v", err)
	}
}

func TestFileChangedBeforeUpload(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "first")
	w.stop()
	path, data := randomFile(t, 1<<20)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := alice.SendFile(ctx, Draft{Conversation: conv}, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	data[700000] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	alice.until("gives up", func() bool {
		o, err := alice.Outcome(ctx, id)
		return err == nil && o.State == OutcomeRefused
	})
	alice.says(conv, "after")
	bob.gets("first", "after")
	if bob.fileEvent() != nil {
		t.Fatal("a changed file was announced")
	}
}

// A file that is not what its sender sealed, or that the gateway has no more, will not
// come: who asks for it is told so at once, and can go on.
func TestFileThatWillNotCome(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol) // carol never fetches it
	path, _ := randomFile(t, 100)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := alice.SendFile(ctx, Draft{Conversation: conv}, path, nil)
	if err == nil {
		err = alice.Wait(ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	bob.until("hears of the file", func() bool { return bob.fileEvent() != nil })
	cursor := bob.fileEvent().Cursor
	if _, err := bob.Fetch(ctx, cursor, t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(w.dir, "blobs", "*"))
	if err != nil || len(blobs) != 1 {
		t.Fatalf("the gateway has the files %q, %v", blobs, err)
	}
	for want, spoil := range map[string]func() error{
		FileAltered: func() error {
			data, err := os.ReadFile(blobs[0])
			if err != nil {
				return err
			}
			data[50] ^= 1
			return errors.Join(os.Chmod(blobs[0], 0o600), os.WriteFile(blobs[0], data, 0o600))
		},
		FileGone: func() error { return os.Remove(blobs[0]) },
	} {
		t.Run(want, func(t *testing.T) {
			kept, err := os.ReadFile(blobs[0])
			if err == nil {
				err = spoil()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(blobs[0], kept, 0o600)
			var final *FileError
			dir := t.TempDir()
			if _, err := bob.Fetch(ctx, cursor, dir, nil); !errors.As(err, &final) || final.Reason != want || !IsFileReason(final.ErrorCode()) {
				t.Errorf("fetched: %v", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("what is left: %v, %v", left, err)
			}
		})
	}
}
