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

// put queues a frame.
func (o *outbox) put(f wire.Frame) error {
	frame, err := wire.Marshal(f)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ended {
		o.unsent = append(o.unsent, frame...)
		o.cond.Broadcast()
	}
	return nil
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
	for {
		o.mu.Lock()
		o.writing = false
		o.cond.Broadcast()
		for !o.ended && len(o.unsent) == 0 {
			o.cond.Wait()
		}
		if o.ended {
			o.mu.Unlock()
			return
		}
		chunk := o.unsent
		o.unsent, o.writing = nil, true
		o.mu.Unlock()
		if _, err := o.w.Write(chunk); err != nil {
			o.end()
			return
		}
	}
}
