// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"valise/internal/disk"
	"valise/internal/stage"
)

const domain = "interieur.example"

// A conversation is one that people write in. The guest of one comes and goes.
type conversation struct {
	Name    string   `json:"name"`
	Members []string `json:"members"` // who founds it first
	Guest   string   `json:"guest,omitempty"`
	Hosts   []string `json:"hosts,omitempty"` // who let the guest in and out
}

var conversations = []conversation{
	{Name: "plenum", Members: []string{"alice", "bob", "carol"}, Guest: "dave", Hosts: []string{"alice", "carol"}},
	{Name: "duo", Members: []string{"bob", "alice"}},
	{Name: "trio", Members: []string{"dave", "bob", "carol"}},
}

var names = []string{"alice", "bob", "carol", "dave"}

// A world is everything that runs.
type world struct {
	*stage.Stage
	opts      *options
	rng       *rand.Rand // owned by run; others get sources of their own
	logs      string     // folder that the judge reads
	authority *stage.Authority
	nodes     []*node // the gateway, or several on one database
	people    map[string]*person

	places   []*volume // of the nodes' data, in their order
	database *database // nil: the gateway's store is its own, or a cluster
	cluster  *cluster  // nil: there is none that fails over

	restored time.Time // when the gateway had gone in the last act; never while a fault goes on

	authorityMu sync.Mutex // held while the authority is interfered with

	ops, faults *journal
}

func (w *world) source(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(w.opts.seed, stream))
}

// build starts everything and lets people found their conversations.
func (o *options) build(ctx context.Context) (*world, error) {
	w := &world{opts: o, people: map[string]*person{}, rng: rand.New(rand.NewPCG(o.seed, 1))}
	if err := prepareNamespaces(); err != nil {
		return nil, err
	}
	var err error
	w.Stage, err = stage.New(stage.Config{Bin: o.bin, TokenServers: true, PrepareData: func(dir string) (err error) {
		v := &volume{dir: dir, disk: disk.New(disk.Config{Seed: o.seed + 10*uint64(len(w.places)), Torn: o.disk == "torn"})}
		v.mount, err = v.disk.Mount(dir)
		w.places = append(w.places, v)
		return err
	}})
	if err != nil {
		return w, err
	}
	if w.logs = o.records; w.logs == "" {
		w.logs = filepath.Join(w.Dir, "soak")
	}
	if err := os.Mkdir(w.logs, 0o700); err != nil {
		return w, err
	}
	switch o.store {
	case postgresStore:
		w.Database, err = w.newDatabase(ctx)
	case clusterStore, asyncStore:
		w.Database, err = w.newCluster(ctx)
	}
	if err != nil {
		return w, err
	}
	for name, j := range map[string]**journal{"operations.jsonl": &w.ops, "faults.jsonl": &w.faults} {
		if *j, err = newJournal(w.logs, name); err != nil {
			return w, err
		}
	}
	if err := w.found(ctx); err != nil {
		return w, err
	}
	return w, w.converse(ctx)
}

// prepareNamespaces makes the new namespaces usable: mounts stay inside, /proc shows this
// process's children, and the loopback is up.
func prepareNamespaces() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("a mount namespace: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return stage.RaiseLoopback()
}

// found makes authority, gateway and people, and enrolls them.
func (w *world) found(ctx context.Context) error {
	root := w.AttestationRoot("attestation")
	var roster []string
	for i, name := range names {
		card, err := w.NewCard(ctx, root, uint32(40000001+i))
		if err != nil {
			return err
		}
		if _, err := w.NewReader(ctx, name, card); err != nil {
			return err
		}
		p := &person{Official: w.NewOfficial(name, name+"@"+domain, card), world: w, dir: filepath.Join(w.logs, name)}
		w.people[name] = p
		roster = append(roster, p.Address+","+name+",Unit,")
	}
	pem, err := w.RootPEM(ctx, root)
	if err != nil {
		return err
	}
	if w.authority, err = w.NewAuthority(ctx, "authority", domain, roster, pem); err != nil {
		return err
	}
	if err := w.newNodes(ctx); err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make(chan error, len(names))
	for _, p := range w.people {
		all.Go(func() { errs <- p.join(ctx) })
	}
	all.Wait()
	for range names {
		err = errors.Join(err, <-errs)
	}
	return err
}

// join enrolls a person and moves their device into a network of its own, from which a
// relay is the only way to the gateway.
func (p *person) join(ctx context.Context) error {
	w := p.world
	if _, err := p.Enroll(ctx, w.authority, w.gateways()...); err != nil {
		return err
	}
	if _, err := p.Run(ctx, "agent", "--stop"); err != nil && p.AgentRuns() {
		return err
	}
	network, err := stage.NewNetwork()
	if err != nil {
		return err
	}
	for i, n := range w.nodes {
		_, port, err := net.SplitHostPort(n.Address)
		if err != nil {
			return err
		}
		to, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		if err := p.open(network, to, w.opts.seed+uint64(p.Card.Serial)+uint64(i)<<32); err != nil {
			return err
		}
	}
	p.Network = network
	if err := p.unlock(ctx); err != nil {
		return err
	}
	out, err := p.Run(ctx, "status", "--json")
	if err != nil {
		return err
	}
	var status struct{ Device string }
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Device == "" {
		return fmt.Errorf("status of %s: %w: %s", p.Name, err, out)
	}
	p.device = status.Device
	return p.follow()
}

// converse founds the conversations and waits until everybody is in them.
func (w *world) converse(ctx context.Context) error {
	for _, c := range conversations {
		founder := w.people[c.Members[0]]
		args := []string{"send", "--name", c.Name}
		for _, name := range c.Members[1:] {
			args = append(args, w.people[name].Address)
		}
		for _, p := range w.people { // they must know each other's devices
			if err := p.knows(ctx, w.people); err != nil {
				return err
			}
		}
		op := founder.draft(c.Name, w.rng)
		args = append(args[:1:1], append([]string{"--id", op.ID}, append(args[1:], op.Text)...)...)
		if _, err := founder.Run(ctx, args...); err != nil {
			return fmt.Errorf("found %s: %w", c.Name, err)
		}
		op.Return, op.Outcome = now(), "acknowledged"
		w.ops.add(op)
		for _, name := range c.Members[1:] {
			_, err := stage.Poll(ctx, name+" to be in "+c.Name, func() (struct{}, bool, error) {
				out, err := w.people[name].Run(ctx, "conversations", "--json")
				return struct{}{}, err == nil && strings.Contains(out, fmt.Sprintf("%q", c.Name)), nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *person) knows(ctx context.Context, people map[string]*person) error {
	_, err := stage.Poll(ctx, p.Name+" to see everybody", func() (struct{}, bool, error) {
		out, err := p.Run(ctx, "contacts")
		for _, other := range people {
			if err != nil || !strings.Contains(out, other.Address) {
				return struct{}{}, false, nil
			}
		}
		return struct{}{}, true, nil
	})
	return err
}

// writePlan tells the judge what to expect.
func (w *world) writePlan(kinds []string) error {
	pl := plan{Seed: w.opts.seed, Store: w.opts.store, Disk: w.opts.disk, Nodes: len(w.nodes), Conversations: conversations, Kinds: kinds}
	if w.cluster != nil {
		pl.Failovers = w.opts.failovers
	}
	for _, name := range names {
		p := w.people[name]
		pl.People = append(pl.People, planned{p.Name, p.Address, p.device})
	}
	data, err := json.MarshalIndent(pl, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.logs, "plan.json"), append(data, '\n'), 0o600)
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
