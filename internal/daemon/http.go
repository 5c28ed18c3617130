// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// HTTP is a Part that serves HTTP (or HTTPS, if ln is a TLS listener) and drains by
// finishing the requests that run. Who has connected already gets an answer: net/http
// alone drops the first request of a connection that it reads after the end has begun.
func HTTP(name string, srv *http.Server, ln net.Listener) Part {
	n := newcomers{now: make(map[net.Conn]bool), also: srv.ConnState}
	srv.ConnState = n.note
	var closing atomic.Bool
	return Part{
		Name: name,
		Serve: func(context.Context) error {
			if err := srv.Serve(ln); !closing.Load() && !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
		Drain: func(ctx context.Context) error {
			closing.Store(true)
			_ = ln.Close() // nobody enters any more
			n.wait(ctx)
			if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
				return errors.Join(err, srv.Close())
			}
			return nil
		},
	}
}

// newcomerPatience is how long a daemon that stops waits for the first request of those
// who have connected. Whoever says nothing for so long is let go.
const newcomerPatience = time.Second

// newcomers are connections whose first request has not come yet.
type newcomers struct {
	also func(net.Conn, http.ConnState)

	mu  sync.Mutex
	now map[net.Conn]bool // guarded by mu
}

func (n *newcomers) note(c net.Conn, state http.ConnState) {
	n.mu.Lock()
	if state == http.StateNew {
		n.now[c] = true
	} else {
		delete(n.now, c)
	}
	n.mu.Unlock()
	if n.also != nil {
		n.also(c, state)
	}
}

// wait returns when there are none, for two looks in succession: one may be on its way
// from the listener to the server.
func (n *newcomers) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, newcomerPatience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for none := 0; none < 2; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n.mu.Lock()
		if none++; len(n.now) > 0 {
			none = 0
		}
		n.mu.Unlock()
	}
}
