// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

var incarnation = [16]byte{1}

func device(n int) (d mailbox.Device) {
	binary.BigEndian.PutUint64(d[:], uint64(n)+1)
	return sha256.Sum256(d[:])
}

func addressOf(d mailbox.Device) string { return fmt.Sprintf("d%x@x.example", d[:4]) }

func arrive(t testing.TB, s mailbox.Store, d mailbox.Device, inc [16]byte, begin bool) mailbox.Standing {
	t.Helper()
	standing, err := s.Arrive(t.Context(), mailbox.Arrival{
		Device: d, Address: addressOf(d), Chain: [][]byte{{1, 2}, {3}}, Incarnation: inc, Begin: begin, Time: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return standing
}

// populate makes devices with an incarnation and the group "g" at epoch 0,
// founded by device 0.
func populate(t testing.TB, s mailbox.Store, n int) {
	t.Helper()
	for i := range n {
		arrive(t, s, device(i), incarnation, true)
	}
	found := &mailbox.Submission{
		Device: device(0), Incarnation: incarnation, Counter: 1, Hash: [32]byte{1}, Time: time.Now(),
		Step: &mailbox.Step{Group: []byte("g"), Create: true, Records: []mailbox.Record{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}}, Info: []byte("info0")},
	}
	if o := apply(t, s, found); o.Verdict != mailbox.Done {
		t.Fatalf("found: %+v", o)
	}
}

func apply(t testing.TB, s mailbox.Store, sub *mailbox.Submission, acks ...mailbox.Ack) mailbox.Outcome {
	t.Helper()
	outcomes, err := s.Apply(t.Context(), []*mailbox.Submission{sub}, acks)
	if err != nil {
		t.Fatal(err)
	}
	return outcomes[0]
}

func content(from int, counter uint64, payload string, to ...int) *mailbox.Submission {
	m := mailbox.Message{Kind: mailbox.Content, Group: []byte("g"), Payload: []byte(payload)}
	for _, d := range to {
		m.To = append(m.To, device(d))
	}
	return &mailbox.Submission{
		Device: device(from), Incarnation: incarnation, Counter: counter, Hash: sha256.Sum256([]byte(payload)), Time: time.UnixMilli(1000),
		Require: &mailbox.Epoch{Group: []byte("g")}, Messages: []mailbox.Message{m},
	}
}

func read(t testing.TB, s mailbox.Store, d int, after uint64) []mailbox.Entry {
	t.Helper()
	entries, err := s.Read(t.Context(), device(d), after, 1000, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// The mark decides before anything else. spec/wire.md, Section 5.
func TestMarks(t *testing.T) { onEachForm(t, testMarks) }

func testMarks(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 3)
	verdict := func(sub *mailbox.Submission, want mailbox.Verdict) {
		t.Helper()
		if o := apply(t, s, sub); o.Verdict != want {
			t.Errorf("counter %d: verdict %d, want %d", sub.Counter, o.Verdict, want)
		}
	}
	verdict(content(0, 3, "gap", 1), mailbox.CounterGap)
	verdict(content(0, 2, "two", 1), mailbox.Done)
	verdict(content(0, 2, "two", 1), mailbox.Repeated)
	verdict(content(0, 2, "other", 1), mailbox.StateConflict)
	stale := content(0, 3, "three", 1)
	stale.Require.Epoch = 9
	verdict(stale, mailbox.StaleEpoch) // and uses no counter up
	verdict(content(0, 3, "three", 1), mailbox.Done)
	verdict(stale, mailbox.Repeated) // the mark comes first: done is done
	foreign := content(0, 4, "x", 1)
	foreign.Incarnation = [16]byte{9}
	verdict(foreign, mailbox.OldIncarnation)
	unknown := content(99, 1, "x", 1)
	verdict(unknown, mailbox.OldIncarnation)
	verdict(content(0, 4, "x", 1, 77), mailbox.UnknownRecipient)
	if got := len(read(t, s, 1, 0)); got != 2 {
		t.Errorf("%d messages, want 2", got)
	}

	// All of it holds over a restart, from the disk.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = p.open(t, mailbox.Quota{})
	verdict(content(0, 2, "two", 1), mailbox.Repeated)
	verdict(content(0, 2, "other", 1), mailbox.StateConflict)
	verdict(content(0, 5, "gap", 1), mailbox.CounterGap)
	verdict(content(0, 4, "four", 1), mailbox.Done)
}

// A submission whose hash is no longer kept is a conflict, never done again.
func TestForgottenHashes(t *testing.T) { onEachForm(t, testForgottenHashes) }

func testForgottenHashes(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 2)
	var batch []*mailbox.Submission
	for i := range mailbox.KeptHashes + 10 {
		batch = append(batch, content(0, uint64(i)+2, fmt.Sprint(i+2), 1))
	}
	if _, err := s.Apply(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	for counter, want := range map[uint64]mailbox.Verdict{
		2: mailbox.StateConflict, 11: mailbox.StateConflict, 12: mailbox.Repeated, mailbox.KeptHashes + 11: mailbox.Repeated,
	} {
		if o := apply(t, s, content(0, counter, fmt.Sprint(counter), 1)); o.Verdict != want {
			t.Errorf("counter %d: %d, want %d", counter, o.Verdict, want)
		}
	}
}

// An incarnation begins once; the one before it is out for ever.
func TestIncarnations(t *testing.T) { onEachForm(t, testIncarnations) }

func testIncarnations(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 2)
	second := [16]byte{2}
	if st := arrive(t, s, device(0), second, false); st.Began || st.Incarnation != incarnation || st.Counter != 1 {
		t.Errorf("without begin: %+v", st)
	}
	if st := arrive(t, s, device(0), second, true); !st.Began || st.Incarnation != second || st.Counter != 0 {
		t.Errorf("begin: %+v", st)
	}
	if o := apply(t, s, content(0, 2, "old", 1)); o.Verdict != mailbox.OldIncarnation {
		t.Errorf("old incarnation: %+v", o)
	}
	sub := content(0, 1, "new", 1)
	sub.Incarnation = second
	if o := apply(t, s, sub); o.Verdict != mailbox.Done {
		t.Errorf("new incarnation: %+v", o)
	}
	if st := arrive(t, s, device(0), second, true); st.Began || st.Counter != 1 {
		t.Errorf("begin again: %+v", st)
	}
	if st := arrive(t, s, device(0), incarnation, true); st.Began || st.Incarnation != second {
		t.Errorf("the old one came back: %+v", st)
	}
	if st := arrive(t, s, device(1), [16]byte{}, true); st.Began {
		t.Errorf("the zero incarnation began: %+v", st)
	}
}

// First come, first served; a commit's step, its records and its fan-out are one.
func TestSteps(t *testing.T) { onEachForm(t, testSteps) }

func testSteps(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 3)
	step := func(from int, counter uint64, info string) *mailbox.Submission {
		sub := content(from, counter, info, 0, 1, 2)
		sub.Require = nil
		sub.Step = &mailbox.Step{
			Group: []byte("g"), From: 0, To: 1, Info: []byte(info),
			Records: []mailbox.Record{{Key: "a"}, {Key: "b", Value: []byte(info)}, {Key: "c", Value: []byte{}}},
		}
		sub.Messages[0].Kind = mailbox.Commit
		return sub
	}
	outcomes, err := s.Apply(t.Context(), []*mailbox.Submission{step(1, 1, "first"), step(2, 1, "second"), content(1, 2, "late", 2)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if outcomes[0].Verdict != mailbox.Done || outcomes[1].Verdict != mailbox.StaleEpoch || outcomes[1].Epoch != 1 || outcomes[2].Verdict != mailbox.StaleEpoch {
		t.Fatalf("%+v", outcomes)
	}
	create := step(2, 1, "again")
	create.Step.Create = true
	if o := apply(t, s, create); o.Verdict != mailbox.GroupExists {
		t.Errorf("a taken id: %+v", o)
	}
	for range 2 {
		g, err := s.Group(t.Context(), []byte("g"))
		if err != nil || g.Epoch != 1 || string(g.Info) != "first" || len(g.Records) != 2 || g.Records[0].Key != "b" || string(g.Records[0].Value) != "first" {
			t.Fatalf("%+v, %v", g, err)
		}
		for d := range 3 {
			if e := read(t, s, d, 0); len(e) != 1 || string(e[0].Payload) != "first" || e[0].Kind != mailbox.Commit || e[0].Number != 1 || e[0].Sender != device(1) {
				t.Fatalf("device %d: %+v", d, e)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = p.open(t, mailbox.Quota{})
	}
	if _, err := s.Group(t.Context(), []byte("h")); !errors.Is(err, mailbox.ErrNotFound) {
		t.Errorf("unknown group: %v", err)
	}
}

// A message is stored once and goes with its last acknowledgement.
func TestAcknowledgement(t *testing.T) { onEachForm(t, testAcknowledgement) }

func testAcknowledgement(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 4)
	for i := range 10 {
		apply(t, s, content(0, uint64(i)+2, fmt.Sprint(i), 1, 2, 3))
	}
	totals := func(messages, pointers int64) {
		t.Helper()
		got, err := s.Totals(t.Context())
		if err != nil || got.Messages != messages || got.Pointers != pointers {
			t.Errorf("%d messages, %d pointers, %v; want %d, %d", got.Messages, got.Pointers, err, messages, pointers)
		}
	}
	totals(10, 30)
	ack := func(acks ...mailbox.Ack) {
		t.Helper()
		if _, err := s.Apply(t.Context(), nil, acks); err != nil {
			t.Fatal(err)
		}
	}
	ack(mailbox.Ack{Device: device(1), Number: 10}, mailbox.Ack{Device: device(2), Number: 4})
	totals(10, 16)
	ack(mailbox.Ack{Device: device(3), Number: 6})
	totals(6, 10)
	ack(mailbox.Ack{Device: device(3), Number: 3}, mailbox.Ack{Device: device(3), Number: 99}, mailbox.Ack{Device: device(50), Number: 1})
	totals(6, 10) // backwards, beyond the end, unknown: nothing
	if e := read(t, s, 2, 4); len(e) != 6 || e[0].Number != 5 || string(e[0].Payload) != "4" {
		t.Errorf("%+v", e)
	}
	ack(mailbox.Ack{Device: device(2), Number: 10}, mailbox.Ack{Device: device(3), Number: 10})
	totals(0, 0)
	apply(t, s, content(0, 12, "next", 1))
	if e := read(t, s, 1, 0); len(e) != 1 || e[0].Number != 11 {
		t.Errorf("numbers did not go on: %+v", e)
	}
}

// Bounded reads: by count, by bytes, but always at least one.
func TestReadBounds(t *testing.T) { onEachForm(t, testReadBounds) }

func testReadBounds(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 2)
	for i := range 5 {
		apply(t, s, content(0, uint64(i)+2, fmt.Sprintf("%0100d", i), 1))
	}
	for _, test := range []struct{ count, bytes, want int }{{3, 1 << 20, 3}, {10, 250, 2}, {10, 1, 1}, {10, 1 << 20, 5}} {
		e, err := s.Read(t.Context(), device(1), 0, test.count, test.bytes)
		if err != nil || len(e) != test.want {
			t.Errorf("%+v: %d entries, %v", test, len(e), err)
		}
	}
}

// A full mailbox refuses; handshakes may use twice as much; nothing of a refused
// submission is kept, for nobody.
func TestQuota(t *testing.T) { onEachForm(t, testQuota) }

func testQuota(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{Messages: 3, Bytes: 1000})
	populate(t, s, 3)
	for i := range 3 {
		apply(t, s, content(0, uint64(i)+2, "x", 1))
	}
	if o := apply(t, s, content(0, 5, "x", 2, 1)); o.Verdict != mailbox.MailboxFull || o.Device != device(1) {
		t.Errorf("%+v", o)
	}
	if e := read(t, s, 2, 0); len(e) != 0 {
		t.Errorf("a refused message went to %d others", len(e))
	}
	commit := content(0, 5, "x", 1)
	commit.Messages[0].Kind = mailbox.Commit
	if o := apply(t, s, commit); o.Verdict != mailbox.Done {
		t.Errorf("a commit: %+v", o)
	}
	if o := apply(t, s, content(0, 6, string(make([]byte, 1001)), 2)); o.Verdict != mailbox.MailboxFull {
		t.Errorf("too many bytes: %+v", o)
	}
	if o := apply(t, s, content(0, 6, "x", 1), mailbox.Ack{Device: device(1), Number: 2}); o.Verdict != mailbox.Done {
		t.Errorf("after an acknowledgement in the same batch: %+v", o)
	}
}

// Interleaved batches of many devices against a model: numbers rise by one in
// every mailbox, nothing is lost, nothing is there twice.
func TestAgainstModel(t *testing.T) { onEachForm(t, testAgainstModel) }

func testAgainstModel(t *testing.T, p place) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 7))
	s := p.open(t, mailbox.Quota{})
	const devices = 6
	populate(t, s, devices)
	counters := make([]uint64, devices)
	counters[0] = 1
	want := make([][]string, devices)
	acked := make([]int, devices)
	for round := range 60 {
		var batch []*mailbox.Submission
		for range r.IntN(20) {
			from := r.IntN(devices)
			counters[from]++
			text := fmt.Sprintf("%d/%d", from, counters[from])
			var to []int
			for d := range devices {
				if d != from && r.IntN(2) == 0 {
					to = append(to, d)
					want[d] = append(want[d], text)
				}
			}
			batch = append(batch, content(from, counters[from], text, to...))
			if r.IntN(5) == 0 {
				batch = append(batch, content(from, counters[from], text, to...)) // again
			}
		}
		var acks []mailbox.Ack
		for d := range devices {
			if n := len(want[d]) - acked[d]; n > 0 && r.IntN(3) == 0 && round%2 == 1 {
				upTo := acked[d] + 1 + r.IntN(n)
				if uint64(upTo) <= lastNumber(t, s, d) {
					acked[d] = upTo
					acks = append(acks, mailbox.Ack{Device: device(d), Number: uint64(upTo)})
				}
			}
		}
		outcomes, err := s.Apply(t.Context(), batch, acks)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range outcomes {
			if !o.OK() {
				t.Fatalf("submission %d: %+v", i, o)
			}
		}
		if r.IntN(10) == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = p.open(t, mailbox.Quota{})
		}
	}
	for d := range devices {
		entries := read(t, s, d, 0)
		if len(entries) != len(want[d])-acked[d] {
			t.Fatalf("device %d: %d entries, want %d", d, len(entries), len(want[d])-acked[d])
		}
		for i, e := range entries {
			if e.Number != uint64(acked[d]+i+1) || string(e.Payload) != want[d][acked[d]+i] {
				t.Fatalf("device %d, entry %d: number %d, %q", d, i, e.Number, e.Payload)
			}
		}
	}
}

func lastNumber(t *testing.T, s mailbox.Store, d int) uint64 {
	t.Helper()
	return arrive(t, s, device(d), [16]byte{}, false).Last
}

// When a transaction fails, memory and disk still agree.
func TestFailedBatchChangesNothing(t *testing.T) { onEachForm(t, testFailedBatchChangesNothing) }

func testFailedBatchChangesNothing(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 2)
	bad := content(0, 3, "three", 1)
	bad.Messages[0].Group = []byte("no such group") // refused by the store as impossible
	if _, err := s.Apply(t.Context(), []*mailbox.Submission{content(0, 2, "two", 1), bad}, nil); err == nil {
		t.Fatal("an impossible submission was taken")
	}
	if e := read(t, s, 1, 0); len(e) != 0 {
		t.Errorf("half of a failed batch is there: %+v", e)
	}
	if o := apply(t, s, content(0, 2, "two", 1)); o.Verdict != mailbox.Done || o.Placed[0].Number != 1 {
		t.Errorf("%+v", o)
	}
}

// One process at a time.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.db")
	s := open(t, path, mailbox.Quota{})
	if _, err := Open(t.Context(), Config{Path: path}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, mailbox.Quota{})
	other := filepath.Join(t.TempDir(), "other.db")
	db, err := store.Open(context.Background(), store.Config{Path: other, Migrations: migrations, ApplicationID: 1})
	if err == nil {
		_ = db.Close()
	}
	if _, err := Open(t.Context(), Config{Path: other}); !errors.Is(err, store.ErrForeign) {
		t.Errorf("another program's database: %v", err)
	}
}

// Chains in the store come back as they were.
func FuzzParseChain(f *testing.F) {
	good, _ := marshalChain([][]byte{{1, 2, 3}, {}, {4}})
	f.Add(good)
	f.Add([]byte{0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := parseChain(data)
		if err != nil {
			return
		}
		again, err := marshalChain(chain)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x became %x, %v", data, again, err)
		}
	})
}
