// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"valise/internal/stage"
	"valise/internal/testenv"
)

// nodesWorld is a world whose gateway has several nodes on one PostgreSQL, and people who
// know all of them.
func nodesWorld(t *testing.T, nodes []string, names ...string) (*world, []*stage.Gateway) {
	t.Helper()
	database := testenv.Postgres(t)
	w := emptyStage(t, stage.Config{})
	w.Database = database.DSN
	pem, err := w.RootPEM(w.ctx, w.root)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, name := range names {
		lines = append(lines, name+"@"+domain+","+name+",Unit,")
	}
	if w.authority, err = w.NewAuthority(w.ctx, "authority", domain, lines, pem); err != nil {
		t.Fatal(err)
	}
	all, err := w.NewNodes(w.ctx, w.authority, nodes...)
	if err != nil {
		t.Fatal(err)
	}
	w.gateway = all[0]
	for _, name := range names {
		p := w.newPerson(name, name, w.newReader(name, 1)[0])
		if _, err := p.Enroll(w.ctx, w.authority, all...); err != nil {
			t.Fatal(err)
		}
		if err := p.Unlock(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	w.acquainted()
	return w, all
}

// at returns the node at which a person's device is connected.
func (w *world) at(ctx context.Context, p *person, nodes []*stage.Gateway) (*stage.Gateway, error) {
	var found *stage.Gateway
	err := within(ctx, p.Name+" to be at a node", func() bool {
		st, err := p.status(ctx)
		if err != nil || st.Engine.Connection.Name != "online" {
			return false
		}
		for _, g := range nodes {
			if strings.HasSuffix(st.Engine.Connection.Node, g.Address[strings.LastIndex(g.Address, ":"):]) {
				found = g
			}
		}
		return found != nil
	})
	return found, err
}

// Three nodes on one PostgreSQL. While two people write to each other, the node at which one
// of them is gets killed with -9, and then all three are stopped and started
// again, one after the other: devices go from node to node, and what was acknowledged
// arrives once.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	s := seed(t)
	w, nodes := nodesWorld(t, []string{"a", "b", "c"}, "alice", "bob")
	alice, bob := w.people[0], w.people[1]
	w.introduce(alice, bob)
	list := []*correspondence{{from: alice, to: bob}, {from: bob, to: alice}}
	for i, c := range list {
		c.rng, c.texts = rand.New(rand.NewPCG(s, uint64(i))), false
	}
	flows := func(ctx context.Context) error {
		before := []int64{list[0].reported.Load(), list[1].reported.Load()}
		return within(ctx, "messages to flow", func() bool {
			return list[0].reported.Load() > before[0]+1 && list[1].reported.Load() > before[1]+1
		})
	}
	w.correspond(list, func(ctx context.Context) error {
		if err := flows(ctx); err != nil {
			return err
		}
		g, err := w.at(ctx, alice, nodes)
		if err != nil {
			return err
		}
		g.Process().Kill()
		if err := flows(ctx); err != nil {
			return fmt.Errorf("node %s was killed: %w", g.Node, err)
		}
		if err := g.Start(ctx); err != nil {
			return err
		}
		for _, g := range nodes {
			g.Process().Stop()
			if err := flows(ctx); err != nil {
				return fmt.Errorf("node %s is stopped: %w", g.Node, err)
			}
			if err := g.Start(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	out, err := nodes[0].Command(w.ctx, "nodes")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range nodes {
		if !strings.Contains(out, g.Node+"     running") {
			t.Errorf("node %s is not listed as running:\n%s", g.Node, out)
		}
	}
}
