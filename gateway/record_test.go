// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"valise/ledger"
	"valise/wire"
)

const logOrigin = "interieur.example/valise"

// records serves a copy on disk, and one leaf that its checkpoint does not cover.
type records struct {
	*ledger.Copy
	list   []ledger.Item
	broken error
	newest []byte // bulletin
}

func (r *records) Find(_ context.Context, subject [32]byte) (int64, *ledger.Entry, error) {
	for _, i := range r.list {
		if i.Entry.Subject == subject {
			return i.Index, i.Entry, nil
		}
	}
	return 0, nil, ledger.ErrUnknown
}

func (r *records) Hashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error) {
	if r.broken != nil {
		return nil, r.broken
	}
	return r.Copy.Hashes(ctx, indexes)
}

func (r *records) Manifest(context.Context) ([]byte, error) { return []byte("a manifest"), nil }
func (r *records) Bulletin(context.Context) ([]byte, error) { return r.newest, nil }

func newRecords(t *testing.T, n int) (*records, note.Verifier) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ledger.Verifier(logOrigin, pub)
	if err != nil {
		t.Fatal(err)
	}
	r := new(records)
	var tree ledger.Builder
	var head ledger.Head
	for i := range n + 1 {
		payload := fmt.Appendf(nil, "certificate %d", i)
		e, err := ledger.NewEntry(ledger.KindIssuance, payload, time.Unix(1790000000, 0))
		if err != nil {
			t.Fatal(err)
		}
		if i == n {
			head = tree.Head()
		}
		if err := tree.Add(e.Leaf()); err != nil {
			t.Fatal(err)
		}
		r.list = append(r.list, ledger.Item{Index: int64(i), Entry: e, Payload: payload})
	}
	text, err := ledger.SignCheckpoint(t.Context(), logOrigin, head, key)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	err = ledger.WriteCopy(dir, text, func(yield func(ledger.Item, error) bool) {
		for _, i := range r.list {
			if !yield(i, nil) {
				return
			}
		}
	})
	if err == nil {
		r.Copy, err = ledger.OpenCopy(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r, v
}

// spec/wire.md, Section 9: each part, as the authority signed it, and proofs that check
// out; and a clear code for what is not there.
func TestRecordIsServed(t *testing.T) {
	r, v := newRecords(t, 300)
	gw := startGateway(t, gatewayOptions{record: r})
	d := newDevice(t, gw, "alice")
	d.connect(true, 0)
	part := func(g *wire.GetRecord) []byte {
		t.Helper()
		a, ok := d.ask(g).(*wire.Record)
		if !ok || a.Part != g.Part {
			t.Fatalf("part %d: %+v", g.Part, a)
		}
		return a.Data
	}
	text, err := r.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := part(&wire.GetRecord{Part: wire.PartManifest}); string(got) != "a manifest" {
		t.Errorf("manifest %q", got)
	}
	if got := part(&wire.GetRecord{Part: wire.PartCheckpoint}); !bytes.Equal(got, text) {
		t.Errorf("checkpoint %q", got)
	}
	subject := r.list[7].Entry.Subject
	for _, size := range []uint64{0, 8, 100, 300} {
		i, err := ledger.ParseInclusion(part(&wire.GetRecord{Part: wire.PartInclusion, Subject: subject, Size: size}))
		if err != nil {
			t.Fatal(err)
		}
		head := r.Claimed()
		if size == 0 {
			if h, err := i.Check(subject, v); err != nil || h != head {
				t.Errorf("newest: %v, %v", h, err)
			}
			continue
		}
		var tree ledger.Builder
		for _, item := range r.list[:size] {
			if err := tree.Add(item.Entry.Leaf()); err != nil {
				t.Fatal(err)
			}
		}
		if err := i.CheckIn(tree.Head(), subject); err != nil {
			t.Errorf("in %d leaves: %v", size, err)
		}
		g, err := ledger.ParseGrowth(part(&wire.GetRecord{Part: wire.PartGrowth, Size: size}))
		if err != nil {
			t.Fatal(err)
		}
		if h, err := g.Check(tree.Head(), v); err != nil || h != head {
			t.Errorf("growth from %d: %v, %v", size, h, err)
		}
	}
	for name, c := range map[string]struct {
		ask  *wire.GetRecord
		want wire.Code
	}{
		"no bulletin":       {&wire.GetRecord{Part: wire.PartBulletin}, wire.NotFound},
		"unknown":           {&wire.GetRecord{Part: wire.PartInclusion, Subject: [32]byte{1}}, wire.NotFound},
		"young":             {&wire.GetRecord{Part: wire.PartInclusion, Subject: r.list[300].Entry.Subject}, wire.NotCovered},
		"beyond":            {&wire.GetRecord{Part: wire.PartInclusion, Subject: subject, Size: 7}, wire.NotCovered},
		"larger tree":       {&wire.GetRecord{Part: wire.PartInclusion, Subject: subject, Size: 301}, wire.NotCovered},
		"growth beyond":     {&wire.GetRecord{Part: wire.PartGrowth, Size: 301}, wire.NotCovered},
		"growth far beyond": {&wire.GetRecord{Part: wire.PartGrowth, Size: wire.MaxRecordSize}, wire.NotCovered},
	} {
		if got := d.code(c.ask); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A gateway without a record says so; one whose record cannot be read tells the
// operator why, and the device nothing.
func TestRecordNotServed(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	d := newDevice(t, gw, "alice")
	d.connect(true, 0)
	if got := d.code(&wire.GetRecord{Part: wire.PartCheckpoint}); got != wire.NoRecord {
		t.Errorf("no record: %v", got)
	}
	r, _ := newRecords(t, 3)
	r.broken = errors.New("the disk is on fire")
	gw = startGateway(t, gatewayOptions{record: r})
	d = newDevice(t, gw, "alice")
	d.connect(true, 0)
	if got := d.code(&wire.GetRecord{Part: wire.PartGrowth, Size: 2}); got != wire.Unavailable {
		t.Errorf("a broken record: %v", got)
	}
	if got, ok := d.ask(&wire.GetRecord{Part: wire.PartCheckpoint}).(*wire.Record); !ok {
		t.Errorf("what can be read: %+v", got)
	}
}

// Asking counts for a device's rate.
func TestRecordIsRated(t *testing.T) {
	r, _ := newRecords(t, 3)
	gw := startGateway(t, gatewayOptions{record: r, limits: Limits{Rate: 1, Burst: 3}})
	d := newDevice(t, gw, "alice")
	d.connect(true, 0)
	for range 10 {
		if result, ok := d.ask(&wire.GetRecord{Part: wire.PartManifest}).(*wire.Result); ok {
			if result.Code != wire.RateLimited {
				t.Errorf("code %v", result.Code)
			}
			return
		}
	}
	t.Error("ten requests at once pass a rate of one a second")
}
