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
	Reason string            // snake_case
	Epoch  uint64            // where the group stands, for StaleEpoch
	About  identity.DeviceID // whom it is about, if it is about a device
	Err    error             // the cause, may be nil
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

// A Config says where groups live and who is trusted. All fields but the
// last four are required.
type Config struct {
	Trust *identity.Trust
	Store mailbox.Store
	Box   *mailbox.Box
	// Denied says whether a device must not enter a group.
	Denied func(*identity.Device) bool
	// Changed is told each view that a group has from now on: when it is read from the
	// store, founded, or moved by a commit. It must not ask the registry anything.
	Changed func(*View)
	// Join says whether a member may add others; nil: any may.
	Join func(before, after *View, by Member, added []Member) *Refusal
	// Loaded bounds the groups in memory; 0 means maxLoaded.
	Loaded int
}

// A Registry holds the groups that are in use.
type Registry struct {
	cfg  Config
	auth authority

	mu     sync.Mutex
	groups map[string]*group // guarded by mu
	leaves int               // guarded by mu; members of all loaded groups
}

// group is one group in memory. A stale copy of it does no harm: the store
// compares epochs.
type group struct {
	id   []byte
	view atomic.Pointer[View] // nil until loaded

	mu     sync.Mutex
	public *mls.PublicGroup // guarded by mu; nil until loaded
	info   []byte           // guarded by mu; GroupInfo of the present epoch
	gone   bool             // guarded by mu; dropped from the registry

	leaves int // guarded by the registry's mu
}

// New returns a registry. Groups are read from the store when they are first
// asked for.
func New(cfg Config) *Registry {
	if cfg.Denied == nil {
		cfg.Denied = func(*identity.Device) bool { return false }
	}
	if cfg.Changed == nil {
		cfg.Changed = func(*View) {}
	}
	if cfg.Join == nil {
		cfg.Join = func(*View, *View, Member, []Member) *Refusal { return nil }
	}
	if cfg.Loaded == 0 {
		cfg.Loaded = maxLoaded
	}
	return &Registry{cfg: cfg, auth: authority{cfg.Trust}, groups: make(map[string]*group)}
}

// View returns a group as of its present epoch; the error is a *Refusal with
// wire.UnknownGroup if there is no such group.
func (r *Registry) View(ctx context.Context, id []byte) (*View, error) {
	if v := r.get(id).view.Load(); v != nil {
		return v, nil
	}
	g := r.hold(id)
	defer g.mu.Unlock()
	if err := r.load(ctx, g); err != nil {
		return nil, err
	}
	return g.view.Load(), nil
}

// Info returns what a member needs for a resync by external commit.
func (r *Registry) Info(ctx context.Context, id []byte, device identity.DeviceID) (*wire.Group, error) {
	g := r.hold(id)
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

// Visit has Config.Changed told of a group as it is now, and leaves it in the store if it
// was there alone.
func (r *Registry) Visit(ctx context.Context, id []byte) error {
	_, err := r.visit(ctx, id)
	return err
}

func (r *Registry) visit(ctx context.Context, id []byte) (*View, error) {
	g := r.hold(id)
	defer g.mu.Unlock()
	if g.public != nil {
		return g.view.Load(), nil // told when it was read
	}
	if err := r.load(ctx, g); err != nil {
		return nil, err
	}
	v := g.view.Load()
	r.forget(g)
	return v, nil
}

// List tells the store who stands in a group's tree, which is from before it kept that by
// device. It visits the group for it.
func (r *Registry) List(ctx context.Context, id []byte) error {
	v, err := r.visit(ctx, id)
	if err != nil {
		return err
	}
	return r.cfg.Store.List(ctx, v.ID, v.Epoch, v.Others(identity.DeviceID{}))
}

// Views returns the views of all groups in memory. Others are told to Config.Changed
// when somebody asks for them.
func (r *Registry) Views() []*View {
	r.mu.Lock()
	defer r.mu.Unlock()
	views := make([]*View, 0, len(r.groups))
	for _, g := range r.groups {
		if v := g.view.Load(); v != nil {
			views = append(views, v)
		}
	}
	return views
}

// show makes v the view of a group. The caller holds g.mu.
func (r *Registry) show(g *group, v *View) {
	g.view.Store(v)
	r.cfg.Changed(v)
}

// get returns a group's place in memory, loaded or not.
func (r *Registry) get(id []byte) *group {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g, ok := r.groups[string(id)]; ok {
		return g
	}
	g := &group{id: append([]byte(nil), id...)}
	r.groups[string(id)] = g
	return g
}

// hold returns a group's place in memory with its lock taken. A place that was
// dropped meanwhile is of no use: who looks the group up anew would not see a
// commit that is made there.
func (r *Registry) hold(id []byte) *group {
	for {
		g := r.get(id)
		g.mu.Lock()
		if !g.gone {
			return g
		}
		g.mu.Unlock()
	}
}

// keep notes how large a loaded group is, and drops others while all of them
// together are too large. Only what exists takes another group's place: asking
// for groups that do not exist costs nobody else anything. The caller holds
// g.mu.
func (r *Registry) keep(g *group, members int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.gone {
		return
	}
	r.leaves += members - g.leaves
	g.leaves = members
	for _, other := range r.groups { // in no order: good enough, and cheap
		if len(r.groups) <= r.cfg.Loaded && r.leaves <= maxLeaves {
			return
		}
		if other == g || !other.mu.TryLock() {
			continue // a commit to it may be on its way to the disk
		}
		r.drop(other)
		other.mu.Unlock()
	}
}

// drop takes a group out of memory. The caller holds r.mu and g.mu.
func (r *Registry) drop(g *group) {
	if !g.gone {
		g.gone = true
		r.leaves -= g.leaves
		delete(r.groups, string(g.id))
	}
}

// forget drops a group from memory, so that the next look reads the store. The
// caller holds g.mu.
func (r *Registry) forget(g *group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(g)
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
	if stored.Epoch == mailbox.LostEpoch {
		r.forget(g)
		return refuse(wire.UnknownGroup, "lost_group", nil)
	}
	public, v, err := r.read(stored)
	if err != nil {
		r.forget(g)
		return err
	}
	if v.Epoch != stored.Epoch {
		r.forget(g)
		return fmt.Errorf("group: stored state is of epoch %d, the group of epoch %d", v.Epoch, stored.Epoch)
	}
	g.public, g.info = public, stored.Info
	r.show(g, v)
	r.keep(g, len(v.Members))
	return nil
}

// read makes the public tree and the view of what is stored.
func (r *Registry) read(stored *mailbox.Group) (*mls.PublicGroup, *View, error) {
	public, err := mls.LoadPublicGroup(r.auth, fromRecords(stored.Records))
	if err != nil {
		return nil, nil, fmt.Errorf("group: stored state is damaged: %w", err)
	}
	v, err := newView(stored.ID, public.Epoch(), public.Members(), r.auth)
	if err != nil {
		return nil, nil, fmt.Errorf("group: stored state is damaged: %w", err)
	}
	return public, v, nil
}

// Lost returns a group that does not go on, as it was when the store's backup was
// made; ErrNotFound for any other. It is good for reading files that were there then.
func (r *Registry) Lost(ctx context.Context, id []byte) (*View, error) {
	stored, err := r.cfg.Store.Group(ctx, id)
	if err == nil && stored.Epoch != mailbox.LostEpoch {
		err = mailbox.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	_, v, err := r.read(stored)
	return v, err
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
