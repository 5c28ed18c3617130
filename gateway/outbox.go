// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"io"
	"sync"

	"valise/wire"
)

// An outbox collects answers and writes them in as few calls as possible. The
// committer puts answers into it and must never wait, so putting does not
// block; the reader of requests waits instead, while too much is unsent.
type outbox struct {
	w io.Writer

	mu      sync.Mutex
	cond    *sync.Cond
	unsent  []byte // guarded by mu
	asleep  bool   // guarded by mu; the writer waits for something to write
	writing bool   // guarded by mu; the writer holds bytes that are not yet out
	ended   bool   // guarded by mu; nothing more is written
	stopped chan struct{}
	unhook  func() bool
}

func newOutbox(w io.Writer, ctx context.Context) *outbox {
	o := &outbox{w: w, stopped: make(chan struct{})}
	o.cond = sync.NewCond(&o.mu)
	o.unhook = context.AfterFunc(ctx, o.end)
	go o.run()
	return o
}

// put queues a frame; flush sends it.
func (o *outbox) put(f wire.Frame) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return nil
	}
	var err error
	o.unsent, err = wire.Append(o.unsent, f)
	return err
}

// flush wakes the writer if there is something to write and it does not know.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.asleep && len(o.unsent) > 0 {
		o.asleep = false
		o.cond.Broadcast()
	}
}

// room waits until the peer has taken most of what it asked for; false when
// the outbox has ended.
func (o *outbox) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.ended && len(o.unsent) > maxUnsent {
		o.cond.Wait()
	}
	return !o.ended
}

func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.unsent = nil
	o.cond.Broadcast()
}

// close ends the outbox and waits for its writer.
func (o *outbox) close() {
	o.mu.Lock()
	for !o.ended && (len(o.unsent) > 0 || o.writing) {
		o.cond.Wait()
	}
	o.mu.Unlock()
	o.end()
	o.unhook()
	<-o.stopped
}

func (o *outbox) run() {
	defer close(o.stopped)
	var chunk []byte
	for {
		o.mu.Lock()
		o.writing = false
		o.cond.Broadcast()
		for !o.ended && len(o.unsent) == 0 {
			o.asleep = true
			o.cond.Wait()
		}
		if o.ended {
			o.mu.Unlock()
			return
		}
		if cap(chunk) > maxKept {
			chunk = nil
		}
		chunk, o.unsent, o.writing, o.asleep = o.unsent, chunk[:0], true, false
		o.mu.Unlock()
		if _, err := o.w.Write(chunk); err != nil {
			o.end()
			return
		}
	}
}
