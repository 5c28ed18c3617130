// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/wire"
)

// watched is the gateway's real store; it can hold up Apply and counts how
// often groups are read.
type watched struct {
	mailbox.Store
	held          atomic.Bool // Apply says that it has entered, and waits at the door
	entered, door chan struct{}

	mu    sync.Mutex
	reads map[string]int // guarded by mu
}

func (w *watched) Apply(ctx context.Context, batch []*mailbox.Submission, acks []mailbox.Ack) ([]mailbox.Outcome, error) {
	if w.held.Load() {
		w.entered <- struct{}{}
		<-w.door
	}
	return w.Store.Apply(ctx, batch, acks)
}

func (w *watched) Group(ctx context.Context, id []byte) (*mailbox.Group, error) {
	w.mu.Lock()
	w.reads[string(id)]++
	w.mu.Unlock()
	return w.Store.Group(ctx, id)
}

func (w *watched) readsOf(id []byte) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reads[string(id)]
}

// registryOf makes a registry of its own over a gateway's store.
func registryOf(t *testing.T, gw *testGateway, w *watched, loaded int) *group.Registry {
	t.Helper()
	w.Store, w.reads = gw.cfg.Store, make(map[string]int)
	box := mailbox.New(mailbox.Config{Store: w})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = box.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return group.New(group.Config{Trust: gw.cfg.Trust, Store: w, Box: box, Loaded: loaded})
}

// head is what a session makes of a submission before its effect.
func (d *testDevice) head(s wire.Submission) *mailbox.Submission {
	d.t.Helper()
	s.SetSubmissionCounter(d.counter + 1)
	hash, err := wire.Digest(s)
	if err != nil {
		d.t.Fatal(err)
	}
	return &mailbox.Submission{Device: d.id, Incarnation: d.incarnation, Counter: d.counter + 1, Hash: hash, Time: time.Now()}
}

func epochOf(t *testing.T, r *group.Registry, id []byte) uint64 {
	t.Helper()
	v, err := r.View(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v.Epoch
}

// A group whose commit is on its way to the disk keeps its place in memory:
// otherwise a copy read meanwhile would stay in the old epoch and refuse
// everybody for ever.
func TestGroupInUseStaysInMemory(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, _, ga, _ := pair(t, gw)
	other := alice.found()
	w := &watched{entered: make(chan struct{}, 8), door: make(chan struct{})}
	w.held.Store(true)
	r := registryOf(t, gw, w, 1)

	_, req := alice.commitOf(ga)
	before := ga.Epoch()
	sub := alice.head(req)
	done := make(chan error, 1)
	go func() {
		o, err := r.Commit(context.Background(), sub, req)
		if err == nil && o.Verdict != mailbox.Done {
			err = fmt.Errorf("verdict %d", o.Verdict)
		}
		done <- err
	}()
	<-w.entered
	epochOf(t, r, other.ID()) // there is room for one
	if epoch := epochOf(t, r, ga.ID()); epoch != before {
		t.Fatalf("epoch %d before the commit is on disk", epoch)
	}
	close(w.door)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if epoch := epochOf(t, r, ga.ID()); epoch != before+1 {
		t.Errorf("epoch %d after the commit, want %d", epoch, before+1)
	}
}

// Asking for groups that do not exist puts no other group out of memory; one
// that exists does.
func TestUnknownGroupsTakeNoPlace(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, _, ga, _ := pair(t, gw)
	other := alice.found()
	w := new(watched)
	r := registryOf(t, gw, w, 1)
	epochOf(t, r, ga.ID())
	for i := range 20 {
		var refusal *group.Refusal
		if _, err := r.View(t.Context(), []byte{9, byte(i)}); !errors.As(err, &refusal) || refusal.Code != wire.UnknownGroup {
			t.Fatal(err)
		}
	}
	epochOf(t, r, ga.ID())
	if n := w.readsOf(ga.ID()); n != 1 {
		t.Errorf("the group was read %d times, want once", n)
	}
	epochOf(t, r, other.ID())
	epochOf(t, r, ga.ID())
	if n := w.readsOf(ga.ID()); n != 2 {
		t.Errorf("beyond the bound the group was read %d times, want twice", n)
	}
}

// A commit that the store has done already, as after a batch of unknown fate,
// brings the group's copy in memory up to date.
func TestRepeatedCommitIsReadAgain(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, _, ga, _ := pair(t, gw)
	r := registryOf(t, gw, new(watched), 0)
	before := epochOf(t, r, ga.ID())
	_, req := alice.commitOf(ga)
	sub := alice.head(req)
	alice.must(req)
	o, err := r.Commit(t.Context(), sub, req)
	if err != nil || o.Verdict != mailbox.Repeated {
		t.Fatalf("%+v, %v", o, err)
	}
	if epoch := epochOf(t, r, ga.ID()); epoch != before+1 {
		t.Errorf("epoch %d, want %d", epoch, before+1)
	}
}

// A founder's tree that cannot be one leaf's is refused before it is read; one
// byte less is read.
func TestLargeFoundingTree(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice := newDevice(t, gw, "alice").ready()
	_, req := alice.founding()
	for size, reason := range map[int]string{2*wire.MaxKeyPackage + 1: "founder_not_alone", 2 * wire.MaxKeyPackage: "invalid_group"} {
		code := alice.submit(&wire.CreateGroup{GroupInfo: req.GroupInfo, Tree: make([]byte, size)})
		if code != wire.InvalidCommit || gw.audit.count(eventRefusedRequest, reason) != 1 {
			t.Errorf("%d bytes: %v, want the reason %s", size, code, reason)
		}
	}
	alice.must(req)
}
