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
// block; the reader of requests waits instead, while too much is unsent. A writer
// runs while there is something to write, so that an idle connection has none.
type outbox struct {
	w io.Writer

	mu      sync.Mutex
	cond    *sync.Cond
	unsent  []byte // guarded by mu
	spare   []byte // guarded by mu; empty memory for unsent
	writing bool   // guarded by mu; a writer runs
	ended   bool   // guarded by mu; nothing more is written
	unhook  func() bool
}

func newOutbox(w io.Writer, ctx context.Context) *outbox {
	o := &outbox{w: w}
	o.cond = sync.NewCond(&o.mu)
	o.unhook = context.AfterFunc(ctx, o.end)
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

// flush starts a writer if there is something to write and none runs.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.writing && len(o.unsent) > 0 {
		o.writing = true
		go o.run()
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

// close writes what waits, ends the outbox and waits for its writer.
func (o *outbox) close() {
	o.flush()
	o.mu.Lock()
	for o.writing {
		o.cond.Wait()
	}
	o.mu.Unlock()
	o.end()
	o.unhook()
}

// run writes until nothing is left.
func (o *outbox) run() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.unsent) > 0 {
		chunk := o.unsent
		o.unsent, o.spare = o.spare[:0], nil
		o.mu.Unlock()
		_, err := o.w.Write(chunk)
		o.mu.Lock()
		if cap(chunk) <= maxKept {
			o.spare = chunk[:0]
		}
		if err != nil {
			o.ended, o.unsent = true, nil
		}
		o.cond.Broadcast()
	}
	o.writing = false
	o.cond.Broadcast()
}
