// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/mod/sumdb/note"

	"valise/bulletin"
	"valise/bulletin/stream"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
)

// errFork is wrapped when a gateway holds a checkpoint of ours that is not of
// our record: one of the two was rewritten, and people must look.
var errFork = errors.New("feed: a gateway holds a checkpoint that contradicts this record: nothing is recorded any more; compare the two with valise audit verify, and restore what agrees")

// A claim is what a gateway says that it has, and what of it it proves.
type claim struct {
	hello    stream.Hello
	manifest *manifest.Manifest // the newer of the gateway's and ours; nil: none
	head     ledger.Head        // of its checkpoint, verified
	note     []byte
	bulletin *bulletin.Bulletin // verified; nil: none
}

func (c *claim) number() uint64 {
	if c.bulletin == nil {
		return 0
	}
	return c.bulletin.Number
}

// readClaim reads Hello and the documents after it, in the order of
// spec/bulletin.md, Section 6.
func (f *Feed) readClaim(r io.Reader) (*claim, error) {
	e, err := stream.Read(r)
	if err != nil {
		return nil, err
	}
	c := new(claim)
	if c.hello, err = e.Hello(); err != nil {
		return nil, err
	}
	c.manifest, _ = f.manifest()
	last := e.Kind
	for {
		if e, err = stream.Read(r); errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		if e.Kind <= last {
			return nil, fmt.Errorf("%w: a %v where it does not belong", stream.ErrMalformed, e.Kind)
		}
		last = e.Kind
		if err := f.proof(c, e); err != nil {
			return nil, err
		}
	}
}

// proof takes in a document of a claim. What does not verify ends the request:
// a gateway verified it before it kept it.
func (f *Feed) proof(c *claim, e stream.Event) (err error) {
	switch e.Kind {
	case stream.KindManifest:
		theirs, err := manifest.ParseManifest(e.Body, f.cfg.Root)
		if err != nil {
			return err
		}
		if theirs.Domain != f.cfg.Domain {
			return fmt.Errorf("feed: a manifest of %s", theirs.Domain)
		}
		if c.manifest == nil || theirs.Number > c.manifest.Number {
			c.manifest = theirs
		}
		return nil
	case stream.KindCheckpoint:
		c.note = e.Body
		c.head, err = openCheckpoint(c.manifest, e.Body)
		return err
	case stream.KindBulletin:
		c.bulletin, err = bulletin.Verify(e.Body, c.manifest)
		return err
	}
	return fmt.Errorf("%w: a %v where it does not belong", stream.ErrMalformed, e.Kind)
}

// openCheckpoint verifies a checkpoint by any key that the manifest names: who
// holds an old one must be able to show it.
func openCheckpoint(m *manifest.Manifest, text []byte) (ledger.Head, error) {
	if m == nil {
		return ledger.Head{}, fmt.Errorf("%w: there is no manifest yet", ledger.ErrCheckpoint)
	}
	var verifiers []note.Verifier
	for _, k := range m.Ledger {
		v, err := ledger.Verifier(m.Origin, k.Public)
		if err != nil {
			return ledger.Head{}, err
		}
		verifiers = append(verifiers, v)
	}
	return ledger.OpenCheckpoint(text, verifiers...)
}

// weigh compares a claim with what this database knows. If the gateway proves
// that it knows more, or this database was restored and the gateway has more
// leaves, the answer says where we stand, and the authority is read-only.
func (f *Feed) weigh(ctx context.Context, p peer, c *claim) (*stream.Behind, error) {
	var (
		us       stream.Behind
		restored bool
		ours     ledger.Head
	)
	err := f.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		us, ours = stream.Behind{}, c.head
		err := tx.Writable()
		restored = errors.Is(err, authority.ErrRestored)
		if err != nil && !restored {
			return err
		}
		if us.Size, err = tx.LedgerSize(); err != nil {
			return err
		}
		signed, err := tx.LatestBulletin()
		if err != nil && !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		us.Bulletin = signed.Number
		if c.head.N > 0 && c.head.N <= us.Size {
			ours, err = tx.LedgerHeadAt(c.head.N)
		} else {
			err = nil
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case ours != c.head:
		return nil, f.forked(ctx, p, c.head)
	case c.head.N > us.Size || c.number() > us.Bulletin:
		return &us, f.fallBehind(ctx, p, c, us, restored)
	case restored && c.hello.Size > us.Size:
		return &us, nil
	case restored && c.head.N > 0: // who knows nothing has not been asked
		return nil, f.hear(ctx, p)
	}
	return nil, nil
}

// fallBehind makes the authority read-only until it has what the gateway proved to hold.
func (f *Feed) fallBehind(ctx context.Context, p peer, c *claim, us stream.Behind, restored bool) error {
	err := f.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return owe(tx, c) })
	if restored {
		return err
	}
	f.cfg.Log.Error("a gateway knows more than this database: read-only until it has told everything",
		"gateway", p.name, "leaves", us.Size, "its_leaves", c.head.N, "bulletin", us.Bulletin, "its_bulletin", c.number())
	f.audit(ctx, "authority behind", slog.String("reason", "gateway_knows_more"), slog.String("gateway", p.name),
		slog.Int64("leaves", us.Size), slog.Int64("its_leaves", c.head.N))
	return err
}

// forked ends everything that is recorded and signed here, in all processes: one of
// the two records was rewritten, and what goes on from the wrong one is lost.
func (f *Feed) forked(ctx context.Context, p peer, head ledger.Head) error {
	err := fmt.Errorf("%w: gateway %s, %d leaves", errFork, p.name, head.N)
	f.mu.Lock()
	f.fork = err
	f.mu.Unlock()
	if stopErr := f.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		return errors.Join(tx.SetFlag(flagForked, fmt.Appendf(nil, "%s, %d leaves", p.name, head.N)), tx.SetFlag(authority.FlagRestored, []byte("a gateway contradicts")))
	}); stopErr != nil {
		return errors.Join(err, stopErr)
	}
	f.cfg.Log.Error("this record and a gateway's contradict each other", "gateway", p.name, "leaves", head.N)
	f.audit(ctx, "record forked", slog.String("reason", "checkpoint_contradicts"), slog.String("gateway", p.name), slog.Int64("leaves", head.N))
	return err
}

// hear notes that a gateway has nothing that this restored database lacks, and
// ends the read-only state when enough have said so.
func (f *Feed) hear(ctx context.Context, p peer) error {
	f.mu.Lock()
	f.heard[p.id] = true
	n := len(f.heard)
	f.mu.Unlock()
	f.audit(ctx, "gateway asked after restore", slog.String("gateway", p.name), slog.Int("asked", n), slog.Int("wanted", f.cfg.Gateways))
	if n < f.cfg.Gateways {
		return nil
	}
	return f.goOn(ctx, n)
}

// goOn ends the read-only state, unless a gateway holds more, or something else.
func (f *Feed) goOn(ctx context.Context, asked int) error {
	err := f.cfg.Store.Recover(ctx, func(tx *authority.Tx) error {
		if err := settled(tx); err != nil && asked > 0 {
			return err
		}
		return tx.ClearFlag(authority.FlagRestored)
	})
	if errors.Is(err, errFork) || errors.Is(err, errOwed) {
		f.cfg.Log.Error("the authority stays read-only", "error", err.Error())
		f.mu.Lock()
		defer f.mu.Unlock()
		if errors.Is(err, errFork) {
			f.fork = err
		}
		return nil
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	clear(f.heard)
	f.mu.Unlock()
	f.cfg.Log.Info("the authority goes on after a restore", "gateways_asked", asked)
	f.audit(ctx, "authority goes on", slog.Int("asked", asked))
	f.wake()
	return nil
}
