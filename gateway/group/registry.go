// SPDX-License-Identifier: Apache-2.0

package group

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// A Refusal says why a request concerning a group is not done: a code for the
// device, a reason for the audit stream.
type Refusal struct {
	Code   wire.Code
	Reason string // snake_case
	Epoch  uint64 // where the group stands, for StaleEpoch
	Err    error  // the cause, may be nil
}

func (r *Refusal) Error() string {
	if r.Err != nil {
		return fmt.Sprintf("group: refused (%s): %v", r.Reason, r.Err)
	}
	return fmt.Sprintf("group: refused (%s)", r.Reason)
}

func (r *Refusal) Unwrap() error { return r.Err }

func refuse(code wire.Code, reason string, err error) error {
	return &Refusal{Code: code, Reason: reason, Err: err}
}

// A Config says where groups live and who is trusted. All fields but Denied
// are required.
type Config struct {
	Trust *identity.Trust
	Store mailbox.Store
	Box   *mailbox.Box
	// Denied says whether a device must not enter a group.
	Denied func(identity.DeviceID) bool
}

// A Registry holds the groups that are in use.
type Registry struct {
	cfg  Config
	auth authority

	mu     sync.Mutex
	groups map[string]*group // guarded by mu
}

// group is one group in memory. A stale copy of it does no harm: the store
// compares epochs.
type group struct {
	id   []byte
	view atomic.Pointer[View] // nil until loaded

	mu     sync.Mutex
	public *mls.PublicGroup // guarded by mu; nil until loaded
	info   []byte           // guarded by mu; GroupInfo of the present epoch
}

// New returns a registry. Groups are read from the store when they are first
// asked for.
func New(cfg Config) *Registry {
	if cfg.Denied == nil {
		cfg.Denied = func(identity.DeviceID) bool { return false }
	}
	return &Registry{cfg: cfg, auth: authority{cfg.Trust}, groups: make(map[string]*group)}
}

// View returns a group as of its present epoch; the error is a *Refusal with
// wire.UnknownGroup if there is no such group.
func (r *Registry) View(ctx context.Context, id []byte) (*View, error) {
	g := r.get(id)
	if v := g.view.Load(); v != nil {
		return v, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := r.load(ctx, g); err != nil {
		return nil, err
	}
	return g.view.Load(), nil
}

// Info returns what a member needs for a resync by external commit.
func (r *Registry) Info(ctx context.Context, id []byte, device identity.DeviceID) (*wire.Group, error) {
	g := r.get(id)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := r.load(ctx, g); err != nil {
		return nil, err
	}
	v := g.view.Load()
	if _, ok := v.Member(device); !ok {
		return nil, refuse(wire.NotMember, "not_member", nil)
	}
	return &wire.Group{Epoch: v.Epoch, GroupInfo: g.info, Tree: g.public.Tree()}, nil
}

// get returns a group's place in memory, loaded or not.
func (r *Registry) get(id []byte) *group {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g, ok := r.groups[string(id)]; ok {
		return g
	}
	if len(r.groups) >= maxLoaded {
		for key := range r.groups { // in no order: good enough, and cheap
			delete(r.groups, key)
			break
		}
	}
	g := &group{id: append([]byte(nil), id...)}
	r.groups[string(id)] = g
	return g
}

// forget drops a group from memory, so that the next look reads the store.
func (r *Registry) forget(g *group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.groups[string(g.id)] == g {
		delete(r.groups, string(g.id))
	}
}

// reset makes the next look read the store. The caller holds g.mu.
func (g *group) reset() {
	g.public, g.info = nil, nil
	g.view.Store(nil)
}

// load reads a group from the store. The caller holds g.mu.
func (r *Registry) load(ctx context.Context, g *group) error {
	if g.public != nil {
		return nil
	}
	stored, err := r.cfg.Store.Group(ctx, g.id)
	if errors.Is(err, mailbox.ErrNotFound) {
		r.forget(g)
		return refuse(wire.UnknownGroup, "unknown_group", nil)
	}
	if err != nil {
		r.forget(g)
		return err
	}
	public, err := mls.LoadPublicGroup(r.auth, fromRecords(stored.Records))
	if err != nil {
		r.forget(g)
		return fmt.Errorf("group: stored state is damaged: %w", err)
	}
	v, err := newView(g.id, public.Epoch(), public.Members(), r.auth)
	if err != nil {
		r.forget(g)
		return fmt.Errorf("group: stored state is damaged: %w", err)
	}
	if v.Epoch != stored.Epoch {
		r.forget(g)
		return fmt.Errorf("group: stored state is of epoch %d, the group of epoch %d", v.Epoch, stored.Epoch)
	}
	g.public, g.info = public, stored.Info
	g.view.Store(v)
	return nil
}

func fromRecords(records []mailbox.Record) mls.Delta {
	d := make(mls.Delta, len(records))
	for i, r := range records {
		d[i] = mls.Record{Key: r.Key, Value: r.Value}
	}
	return d
}

func toRecords(d mls.Delta) []mailbox.Record {
	records := make([]mailbox.Record, len(d))
	for i, r := range d {
		records[i] = mailbox.Record{Key: r.Key, Value: r.Value}
	}
	return records
}
