// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/gateway/mailbox"
)

// gatedDisk holds up each sync while it is shut, and counts them.
type gatedDisk struct {
	syncs atomic.Int64
	gate  atomic.Pointer[chan struct{}]
}

func (d *gatedDisk) WriteAt(f *os.File, p []byte, at int64) error {
	_, err := f.WriteAt(p, at)
	return err
}

func (d *gatedDisk) Sync(f *os.File) error {
	d.syncs.Add(1)
	if gate := d.gate.Load(); gate != nil {
		<-*gate
	}
	return f.Sync()
}

func (d *gatedDisk) SyncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Devices that come while another one is written to the disk are written together,
// each gets what is its own, and one that has gone meanwhile is not written.
func TestArriveTogether(t *testing.T) {
	disk := new(gatedDisk)
	j := openJournaled(t, Config{Path: filepath.Join(t.TempDir(), "relay.db"), Disk: disk})
	arrival := func(n byte) mailbox.Arrival {
		return mailbox.Arrival{
			Device: mailbox.Device{n}, Address: "a@b.example", Chain: [][]byte{{n}},
			Incarnation: [16]byte{n}, Begin: true, Time: time.Unix(1_700_000_000, 0),
		}
	}
	gate := make(chan struct{})
	disk.gate.Store(&gate)
	var work sync.WaitGroup
	come := func(ctx context.Context, a mailbox.Arrival, want error) {
		st, err := j.Arrive(ctx, a)
		if !errors.Is(err, want) || err == nil && (!st.Began || st.Incarnation != a.Incarnation || st.Counter != 0) {
			t.Errorf("device %d: %+v, %v, want %v", a.Device[0], st, err, want)
		}
	}
	work.Go(func() { come(t.Context(), arrival(1), nil) })
	queued := func(n int) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for {
			j.door.Lock()
			there := j.receiving && len(j.arrivals) == n
			j.door.Unlock()
			if there {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("there are never %d waiting", n)
			}
			runtime.Gosched()
		}
	}
	queued(0) // the first one is on its way to the disk
	const others = 40
	for n := byte(2); n < 2+others; n++ {
		work.Go(func() { come(t.Context(), arrival(n), nil) })
	}
	gone, cancel := context.WithCancel(t.Context())
	work.Go(func() { come(gone, arrival(200), context.Canceled) })
	queued(others + 1)
	// One of them comes twice: its second life is after its first.
	again := arrival(2)
	again.Incarnation = [16]byte{99}
	work.Go(func() { come(t.Context(), again, nil) })
	queued(others + 2)
	cancel()
	before := disk.syncs.Load()
	disk.gate.Store(nil)
	close(gate)
	work.Wait()
	// Two batches, and what the journal's next file may take.
	if n := disk.syncs.Load() - before; n > 10 {
		t.Errorf("%d syncs for two groups", n)
	}
	known, err := j.Known(t.Context(), []mailbox.Device{{1}, {2}, {1 + others}, {200}})
	if err != nil || !known[mailbox.Device{1}] || !known[mailbox.Device{2}] || !known[mailbox.Device{1 + others}] || known[mailbox.Device{200}] {
		t.Errorf("known are %v, %v", known, err)
	}
	if st, err := j.Arrive(t.Context(), mailbox.Arrival{Device: mailbox.Device{2}, Address: "a@b.example", Chain: [][]byte{{2}}, Time: again.Time}); err != nil || st.Incarnation != again.Incarnation || st.Began {
		t.Errorf("the device that came twice: %+v, %v", st, err)
	}
}
