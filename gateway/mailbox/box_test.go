// SPDX-License-Identifier: Apache-2.0

package mailbox_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
)

var incarnation = [16]byte{1}

func device(n int) mailbox.Device { return sha256.Sum256([]byte{byte(n), byte(n >> 8)}) }

// gate is the real store with a door before Apply.
type gate struct {
	mailbox.Store
	mu      sync.Mutex
	batches []int         // guarded by mu; sizes
	fail    error         // guarded by mu; answer to the next Apply
	entered chan struct{} // receives when an Apply waits at the door
	door    chan struct{} // nil: open
	free    chan struct{} // closed: open from now on
}

// newGate returns a store with its door closed; the test's end opens it.
func newGate(s mailbox.Store) *gate {
	return &gate{Store: s, entered: make(chan struct{}, 100), door: make(chan struct{}), free: make(chan struct{})}
}

// opened lets everything through at the test's end, before the box is stopped.
func (g *gate) opened(t *testing.T) { t.Cleanup(func() { close(g.free) }) }

func (g *gate) Apply(ctx context.Context, batch []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	if g.door != nil {
		g.entered <- struct{}{}
		select {
		case <-g.door:
		case <-g.free:
		}
	}
	g.mu.Lock()
	g.batches = append(g.batches, len(batch))
	err := g.fail
	g.fail = nil
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return g.Store.Apply(ctx, batch, acks)
}

func openStore(t testing.TB, devices int) mailbox.Store {
	t.Helper()
	s, err := relay.Open(t.Context(), relay.Config{Path: filepath.Join(t.TempDir(), "relay.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	found(t, s, devices)
	return s
}

// found makes devices with an incarnation, and the group "g" of the first of them.
func found(t testing.TB, s mailbox.Store, devices int) {
	t.Helper()
	for i := range devices {
		_, err := s.Arrive(t.Context(), mailbox.Arrival{Device: device(i), Address: "a@x.example", Chain: [][]byte{{1}}, Incarnation: incarnation, Begin: true, Time: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Apply(t.Context(), []*mailbox.Submission{{
		Device: device(0), Incarnation: incarnation, Counter: 1, Time: time.Now(),
		Step: &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("i")},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, cfg mailbox.Config) (*mailbox.Box, func()) {
	t.Helper()
	box := mailbox.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = box.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return box, stop
}

func message(from int, counter uint64, text string, to int) *mailbox.Submission {
	return &mailbox.Submission{
		Device: device(from), Incarnation: incarnation, Counter: counter, Hash: sha256.Sum256([]byte(text)), Time: time.Now(),
		Messages: []mailbox.Message{{Kind: mailbox.Content, Group: []byte("g"), Payload: []byte(text), To: []mailbox.Device{device(to)}}},
	}
}

// Nobody is told "done" before the store has returned from its sync, and what
// arrives meanwhile becomes the next batch, without a timer.
func TestAcknowledgedAfterSync(t *testing.T) {
	g := newGate(openStore(t, 40))
	box, _ := run(t, mailbox.Config{Store: g, Batch: 16})
	g.opened(t)
	reports := make(chan int, 64)
	submit := func(from int) {
		err := box.Submit(t.Context(), message(from, 1, "x", 0), func(o mailbox.Outcome, err error) {
			if err != nil || o.Verdict != mailbox.Done {
				t.Errorf("device %d: %+v, %v", from, o, err)
			}
			reports <- from
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	submit(1)
	<-g.entered
	for from := 2; from < 40; from++ {
		submit(from)
	}
	select {
	case from := <-reports:
		t.Fatalf("device %d was told before the sync", from)
	case <-time.After(50 * time.Millisecond):
	}
	go func() {
		for range g.entered {
			select {
			case g.door <- struct{}{}:
			case <-g.free:
			}
		}
	}()
	g.door <- struct{}{}
	for want := 1; want < 40; want++ {
		if from := <-reports; from != want {
			t.Fatalf("device %d was told when it was device %d's turn", from, want)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if fmt.Sprint(g.batches) != "[1 16 16 6]" {
		t.Errorf("batches %v", g.batches)
	}
}

// A batch that fails is tried one by one; only what cannot be done is refused.
func TestOneBadSubmissionDoesNotRefuseTheOthers(t *testing.T) {
	g := newGate(openStore(t, 5))
	box, _ := run(t, mailbox.Config{Store: g})
	g.opened(t)
	bad := message(2, 1, "x", 0)
	bad.Messages[0].Group = []byte("impossible")
	results := make([]error, 4)
	var all sync.WaitGroup
	for i, sub := range []*mailbox.Submission{message(1, 1, "first", 0), bad, message(3, 1, "x", 0), message(4, 1, "x", 0)} {
		all.Add(1)
		if err := box.Submit(t.Context(), sub, func(_ mailbox.Outcome, err error) { results[i] = err; all.Done() }); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-g.entered
		}
	}
	go func() {
		for range g.entered {
			select {
			case g.door <- struct{}{}:
			case <-g.free:
			}
		}
	}()
	g.door <- struct{}{}
	all.Wait()
	if results[0] != nil || results[1] == nil || results[2] != nil || results[3] != nil {
		t.Errorf("%v", results)
	}
}

// A store that is down refuses with its error and takes the same submission later.
func TestStoreDown(t *testing.T) {
	down := errors.New("disk is gone")
	g := &gate{Store: openStore(t, 2), fail: down}
	box, _ := run(t, mailbox.Config{Store: g})
	if _, err := box.Do(t.Context(), message(1, 1, "x", 0)); !errors.Is(err, down) {
		t.Fatal(err)
	}
	if o, err := box.Do(t.Context(), message(1, 1, "x", 0)); err != nil || o.Verdict != mailbox.Done {
		t.Fatal(o, err)
	}
}

// What was queued is committed at the end; what comes after is refused.
func TestStop(t *testing.T) {
	g := newGate(openStore(t, 30))
	box, stop := run(t, mailbox.Config{Store: g, Batch: 4})
	var told sync.WaitGroup
	for from := 1; from < 30; from++ {
		told.Add(1)
		_ = box.Submit(t.Context(), message(from, 1, "x", 0), func(o mailbox.Outcome, err error) {
			if err != nil {
				t.Errorf("device %d: %v", from, err)
			}
			told.Done()
		})
	}
	<-g.entered
	close(g.door)
	stop()
	told.Wait()
	if _, err := box.Do(t.Context(), message(1, 2, "y", 0)); !errors.Is(err, mailbox.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// A subscriber is woken after the commit and finds the mail in order, whether it
// still is in memory or has to be read.
func TestSubscription(t *testing.T) {
	box, _ := run(t, mailbox.Config{Store: openStore(t, 3)})
	sub, last, err := box.Subscribe(t.Context(), device(2))
	if err != nil || last != 0 {
		t.Fatal(last, err)
	}
	defer sub.Close()
	if e, err := sub.Next(t.Context(), 0, 10, 1<<20, nil); err != nil || len(e) != 0 {
		t.Fatal(e, err)
	}
	const n = 200 // more than stays in memory
	for i := range n {
		if _, err := box.Do(t.Context(), message(1, uint64(i)+1, fmt.Sprint(i), 2)); err != nil {
			t.Fatal(err)
		}
	}
	<-sub.Wake()
	for after := uint64(0); after < n; {
		entries, err := sub.Next(t.Context(), after, 7, 1<<20, nil)
		if err != nil || len(entries) == 0 || len(entries) > 7 {
			t.Fatalf("after %d: %d entries, %v", after, len(entries), err)
		}
		for _, e := range entries {
			if e.Number != after+1 || string(e.Payload) != fmt.Sprint(after) || e.Sender != device(1) {
				t.Fatalf("after %d: %+v", after, e)
			}
			after++
		}
	}
	// A look back reads the store again.
	if e, err := sub.Next(t.Context(), 3, 2, 1<<20, nil); err != nil || len(e) != 2 || e[0].Number != 4 {
		t.Fatal(e, err)
	}
}

// Acknowledgements reach the store with the next batch, and by themselves when
// nothing is put.
func TestAcks(t *testing.T) {
	s := openStore(t, 3)
	box, _ := run(t, mailbox.Config{Store: s, IdleAck: 10 * time.Millisecond})
	for i := range 4 {
		if _, err := box.Do(t.Context(), message(1, uint64(i)+1, "x", 2)); err != nil {
			t.Fatal(err)
		}
	}
	box.Ack(device(2), 1)
	box.Ack(device(2), 3)
	box.Ack(device(2), 2)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		e, err := s.Read(t.Context(), device(2), 0, 10, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(e) == 1 && e[0].Number == 4 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are left", len(e))
		}
	}
}

// uncertain is the real store, but the first Apply reports an error after the
// transaction was committed.
type uncertain struct {
	mailbox.Store
	told bool
}

func (u *uncertain) Apply(ctx context.Context, batch []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	outcomes, err := u.Store.Apply(ctx, batch, acks)
	if !u.told {
		u.told = true
		return nil, errors.Join(err, errors.New("the disk did not answer"))
	}
	return outcomes, err
}

// Mail that was committed by a transaction of unknown fate reaches a connected
// device when the sender repeats the submission, not only after a reconnect.
func TestRepeatedAfterUnknownFateIsDelivered(t *testing.T) {
	box, _ := run(t, mailbox.Config{Store: &uncertain{Store: openStore(t, 3)}})
	sub, last, err := box.Subscribe(t.Context(), device(2))
	if err != nil || last != 0 {
		t.Fatal(last, err)
	}
	defer sub.Close()
	if _, err := box.Do(t.Context(), message(1, 1, "x", 2)); err == nil {
		t.Fatal("the error was not reported")
	}
	if o, err := box.Do(t.Context(), message(1, 1, "x", 2)); err != nil || o.Verdict != mailbox.Repeated {
		t.Fatalf("%+v, %v", o, err)
	}
	select {
	case <-sub.Wake():
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was woken")
	}
	for range 2 { // the second look finds the doubt gone, and nothing lost
		if list, err := sub.Next(t.Context(), 0, 10, 1000, nil); err != nil || len(list) != 1 || string(list[0].Payload) != "x" {
			t.Errorf("got %v, %v", list, err)
		}
	}
	if list, err := sub.Next(t.Context(), 1, 10, 1000, nil); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}
