// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// thin is a line of so many bytes a second: what is written waits in its queue, and packets
// take as long as that.
type thin struct {
	Conn
	rate  int
	least time.Duration

	mu   sync.Mutex
	free time.Time     // when the queue is empty; guarded by mu, as all below
	most time.Duration // the longest queue
}

func (l *thin) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(len(p)) * time.Second / time.Duration(l.rate))
	l.most = max(l.most, time.Until(l.free))
	return len(p), nil
}

func (l *thin) RoundTrip() (least, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.least, l.least + max(0, time.Until(l.free))
}

// Over a thin line files leave a queue of little more than the target, where without a
// pacer all of them wait in it, and still use most of the line.
func TestPacer(t *testing.T) {
	for _, rate := range []int{125_000, 12_500_000} {
		synctest.Test(t, func(t *testing.T) {
			l := &thin{rate: rate, least: 20 * time.Millisecond}
			data := make([]byte, 5*rate)
			p := Over(l)
			began := time.Now()
			var both sync.WaitGroup
			for _, half := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
				both.Go(func() {
					if n, err := p.Writer(t.Context(), l).Write(half); n != len(half) || err != nil {
						t.Error(n, err)
					}
				})
			}
			both.Wait()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%d bytes a second: 5 seconds' worth took %v", rate, took)
			}
			if l.most > 3*paceTarget {
				t.Errorf("%d bytes a second: the queue was %v long", rate, l.most)
			}
			control := &thin{rate: rate}
			_, _ = control.Write(data)
			if control.most < time.Second {
				t.Errorf("the control's queue was %v long", control.most)
			}
		})
	}
}

// Whoever waits for a turn stops when it is told to, and a connection that does not tell
// how long packets take is not waited for.
func TestPacerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l := &thin{rate: 1000, least: time.Millisecond}
		if n, err := Over(l).Writer(ctx, l).Write(make([]byte, 1<<20)); err == nil || n == 1<<20 {
			t.Errorf("all %d bytes, %v", n, err)
		}
		var out bytes.Buffer
		free := &thin{}
		began := time.Now()
		if n, err := Over(free).Writer(t.Context(), &out).Write(make([]byte, 1<<20)); n != 1<<20 || err != nil || time.Since(began) != 0 {
			t.Errorf("%d bytes in %v, %v", n, time.Since(began), err)
		}
	})
}
