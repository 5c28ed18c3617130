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
	node mailbox.Node // nil: nobody else changes groups in the store

	mu     sync.Mutex
	groups map[string]*group // guarded by mu
	leaves int               // guarded by mu; members of all loaded groups
}

// group is one group in memory. A stale copy of it does no harm: the store
// compares epochs.
type group struct {
	id   []byte
	view atomic.Pointer[View] // nil until loaded
	old  atomic.Bool          // another gateway may have changed it since it was loaded

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
	node, _ := cfg.Store.(mailbox.Node)
	return &Registry{cfg: cfg, auth: authority{cfg.Trust}, node: node, groups: make(map[string]*group)}
}

// View returns a group as of the epoch that was heard of last; the error is a *Refusal with
// wire.UnknownGroup if there is no such group. Where other gateways use the store, this may
// be an epoch that is over: it is good for what the store decides once more, by the epoch.
func (r *Registry) View(ctx context.Context, id []byte) (*View, error) {
	return r.ViewAt(ctx, id, 0)
}

// ViewAt is View for a request that is about an epoch: one that is not known here yet is
// looked for in the store.
func (r *Registry) ViewAt(ctx context.Context, id []byte, epoch uint64) (*View, error) {
	g := r.get(id)
	if v := g.view.Load(); v != nil && !g.old.Load() && (r.node == nil || v.Epoch >= epoch) {
		return v, nil
	}
	g = r.hold(id)
	defer g.mu.Unlock()
	if err := r.loadAt(ctx, g, epoch); err != nil {
		return nil, err
	}
	return g.view.Load(), nil
}

// Present returns a group as of its present epoch, by the word of the store: for what is
// decided by its members and by nothing else.
func (r *Registry) Present(ctx context.Context, id []byte) (*View, error) {
	g := r.hold(id)
	defer g.mu.Unlock()
	if err := r.loadPresent(ctx, g); err != nil {
		return nil, err
	}
	return g.view.Load(), nil
}

// Info returns what a member needs for a resync by external commit.
func (r *Registry) Info(ctx context.Context, id []byte, device identity.DeviceID) (*wire.Group, error) {
	g := r.hold(id)
	defer g.mu.Unlock()
	if err := r.loadPresent(ctx, g); err != nil {
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
	kept := g.public != nil
	if err := r.loadPresent(ctx, g); err != nil {
		return nil, err
	}
	v := g.view.Load() // told when it was read
	if !kept {
		r.forget(g)
	}
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

// loadAt is load for a request that is about an epoch. The caller holds g.mu.
func (r *Registry) loadAt(ctx context.Context, g *group, epoch uint64) error {
	if v := g.view.Load(); r.node != nil && v != nil && v.Epoch < epoch {
		return r.loadPresent(ctx, g)
	}
	return r.load(ctx, g)
}

// loadPresent is load, and asks the store whether what is in memory is what it has. The
// caller holds g.mu.
func (r *Registry) loadPresent(ctx context.Context, g *group) error {
	if g.public == nil || r.node == nil {
		return r.load(ctx, g)
	}
	g.old.Store(false) // before the question: what is heard after it counts
	epochs, err := r.node.Epochs(ctx, [][]byte{g.id})
	if err != nil {
		g.old.Store(true)
		return err
	}
	if epoch, ok := epochs[string(g.id)]; !ok || epoch != g.view.Load().Epoch {
		g.reset()
	}
	return r.load(ctx, g)
}

// load reads a group from the store, unless it is in memory and nobody has said that it is
// old. The caller holds g.mu.
func (r *Registry) load(ctx context.Context, g *group) error {
	if g.old.Swap(false) {
		g.reset()
	}
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
