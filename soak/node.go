// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"valise/internal/stage"
)

// A node is the gateway, or one of several.
type node struct {
	*stage.Gateway

	mu    sync.Mutex // held while its process is interfered with
	hsmMu sync.Mutex // held while its token is
}

// newNodes makes the gateway.
func (w *world) newNodes(ctx context.Context) error {
	if w.opts.nodes == 1 && w.cluster == nil {
		g, err := w.NewGateway(ctx, w.authority)
		w.nodes = []*node{{Gateway: g}}
		return err
	}
	var list []string
	for i := range w.opts.nodes {
		list = append(list, fmt.Sprintf("n%d", i+1))
	}
	all, err := w.NewNodes(ctx, w.authority, list...)
	for _, g := range all {
		w.nodes = append(w.nodes, &node{Gateway: g})
	}
	return err
}

func (w *world) gateways() (list []*stage.Gateway) {
	for _, n := range w.nodes {
		list = append(list, n.Gateway)
	}
	return list
}

// node makes a fault of one that befalls a node, drawn.
func (w *world) node(f func(context.Context, *rand.Rand, *node) (string, bool, error)) func(context.Context, *rand.Rand) (string, bool, error) {
	return func(ctx context.Context, rng *rand.Rand) (string, bool, error) {
		return f(ctx, rng, w.nodes[rng.IntN(len(w.nodes))])
	}
}

// start starts the daemon, again and again while what it needs is broken too. The mutex is held.
func (n *node) start(ctx context.Context) error {
	return again(ctx, func(ctx context.Context) error { return n.Start(ctx) })
}

// revive starts the node if it has ended by itself.
func (n *node) revive(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.Process().Running() {
		return nil
	}
	return n.start(ctx)
}

// upgrade stops one node after the other in order, and starts it with another program. The
// next time, it is the former one again.
func (w *world) upgrade(ctx context.Context, rng *rand.Rand) (string, bool, error) {
	program := w.opts.next
	if w.nodes[0].Bin != "" {
		program = ""
	}
	for _, n := range w.nodes {
		n.mu.Lock()
		n.Process().Stop()
		n.Bin = program
		err := n.start(ctx)
		n.mu.Unlock()
		if err != nil {
			return "", true, errors.Join(fmt.Errorf("upgrade of %s", n.Node), err)
		}
		w.during(ctx, rng, time.Second, 3*time.Second)
	}
	return fmt.Sprintf("%d nodes, one after the other", len(w.nodes)), true, nil
}
