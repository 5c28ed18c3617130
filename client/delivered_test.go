// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

// sends sends a file and waits until the gateway has it.
func (d *device) sends(t *testing.T, conv ConversationID, path string) MessageID {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := d.SendFile(ctx, Draft{Conversation: conv}, path, nil)
	if err == nil {
		err = d.Wait(ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (d *device) fetches(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d.until("hears of the file", func() bool { return d.fileEvent() != nil })
	path, err := d.Fetch(ctx, d.fileEvent().Cursor, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (d *device) eventOf(kind string) *Event {
	for _, ev := range d.all() {
		if ev.Kind == kind {
			return &ev
		}
	}
	return nil
}

func (w *world) blobs(t *testing.T) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(w.dir, "blobs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// The gateway keeps a file until the last recipient has it on its disk, and no longer; its
// sender is told. What was fetched stays.
func TestFileGoesWhenAllHaveIt(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	path, data := randomFile(t, 300<<10)
	id := alice.sends(t, conv, path)
	bob.fetches(t)
	bob.until("has told the gateway", func() bool { return bob.owes(t) == 0 })
	if n := w.blobs(t); n != 1 {
		t.Fatalf("one of two has it, and the gateway has %d files", n)
	}
	if ev := alice.eventOf(EventFileFetched); ev != nil {
		t.Fatalf("the sender was told too early: %+v", ev)
	}
	got, err := os.ReadFile(carol.fetches(t))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the file differs, %v", err)
	}
	carol.restart()
	alice.until("is told", func() bool { return alice.eventOf(EventFileFetched) != nil })
	if ev := alice.eventOf(EventFileFetched); ev.Of != 2 || len(ev.Messages) != 1 || ev.Messages[0] != id || ev.Conversation != conv {
		t.Errorf("%+v", ev)
	}
	if n := w.blobs(t); n != 0 {
		t.Errorf("all have it, and the gateway has %d files", n)
	}
}

// owes is how many files the device has to follow.
func (d *device) owes(t *testing.T) int {
	t.Helper()
	list, err := d.followed()
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
