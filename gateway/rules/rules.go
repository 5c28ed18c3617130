// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"valise/bulletin"
	"valise/policy/bundle"
)

// ErrWaits says that a bundle is in order and not in force: the newest bulletin
// names another one, or none. It is kept in memory until its bulletin comes.
var ErrWaits = errors.New("the bundle is in order and waits for a bulletin that names it")

// The events of the audit stream.
const (
	eventInForce = "bundle_in_force"
	eventRefused = "bundle_refused"
	eventWaits   = "bundle_waits"
	eventMissing = "bundle_missing"
)

// A State is what is in force at one moment. It does not change. A nil State
// means that there is no bundle, and that the authority knows of none.
type State struct {
	Bundle  *bundle.Bundle // nil: none is held
	File    []byte         // as the officers signed it, for devices
	Missing bool           // the authority names another bundle than this one
}

// A Config says where bundles come from. Path and Verify are required.
type Config struct {
	Path string // of the copy of what is in force

	// Verify verifies one statement as of its place in the authority's record.
	Verify bundle.VerifyFunc

	// Statements returns what the record holds about a bundle, for files that were
	// laid down before the second officer signed; nil: nothing.
	Statements func(ctx context.Context, hash [32]byte) ([][]byte, error)

	// Event writes the audit stream; nil: none.
	Event func(ctx context.Context, event, reason string, attrs ...slog.Attr) error
	Log   *slog.Logger
	Now   func() time.Time
}

// Rules are the bundle in force and the one that waits. Methods may be called by
// any goroutine.
type Rules struct {
	cfg Config

	mu      sync.Mutex
	state   *State       // guarded by mu
	apply   func(*State) // guarded by mu
	floor   uint32       // guarded by mu; the version that was in force last
	last    [32]byte     // guarded by mu; and its hash
	known   bool         // guarded by mu; a bulletin was seen
	named   [32]byte     // guarded by mu; what the bulletin names
	waiting []byte       // guarded by mu; a file whose time has not come
	told    [32]byte     // guarded by mu; the complaint made last, so that it is made once
}

// Open reads the copy of what was in force. It counts again when Follow is told
// of a bulletin that names it; until then nothing but that is known.
func Open(cfg Config) (*Rules, error) {
	if cfg.Path == "" || cfg.Verify == nil {
		return nil, errors.New("rules: path and verifier must be given")
	}
	if cfg.Event == nil {
		cfg.Event = func(context.Context, string, string, ...slog.Attr) error { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Rules{cfg: cfg, apply: func(*State) {}}
	kept, err := readFile(cfg.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("rules: the copy of the bundle in force: %w", err)
	default:
		signed, err := bundle.ParseSigned(kept)
		if err == nil {
			r.last, err = signed.Contents.Hash()
		}
		if err != nil {
			return nil, fmt.Errorf("rules: %s is damaged: %w: find out how, then remove it and lay the bundle down again", cfg.Path, err)
		}
		r.floor, r.waiting = signed.Contents.Version, kept
	}
	return r, nil
}

// Apply sets what is called with the state, now and after every change, one call
// after the other.
func (r *Rules) Apply(apply func(*State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apply = apply
	apply(r.state)
}

// Now returns what is in force.
func (r *Rules) Now() *State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Check fails while the bundle in force is not held, for /healthz.
func (r *Rules) Check(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != nil && r.state.Missing {
		return fmt.Errorf("the policy bundle in force, %x…, is not here: no content is relayed until it is laid down", r.named[:8])
	}
	return nil
}

// Offer takes a signed bundle: into force if the bulletin names it, to wait if
// that does not yet, and otherwise not at all. A nil error means that it is in
// force, ErrWaits that it waits.
func (r *Rules) Offer(ctx context.Context, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.take(ctx, data)
	if errors.Is(err, ErrWaits) {
		r.waiting = data
	}
	return err
}

// Follow puts into force what the newest bulletin names.
func (r *Rules) Follow(ctx context.Context, set *bulletin.Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := set.Bulletin()
	if b == nil {
		return
	}
	if r.known && r.named == b.Bundle && r.settled() {
		return
	}
	r.known, r.named = true, b.Bundle
	if r.waiting != nil {
		if err := r.take(ctx, r.waiting); err == nil || !errors.Is(err, ErrWaits) && !errors.Is(err, bundle.ErrSignatures) {
			r.waiting = nil
		}
	}
	if !r.settled() {
		r.miss(ctx)
	}
}

// settled reports whether what is in force is what the bulletin names.
func (r *Rules) settled() bool {
	if r.state == nil || r.state.Bundle == nil {
		return r.named == [32]byte{} && (r.state == nil || !r.state.Missing)
	}
	return !r.state.Missing && r.state.Bundle.Hash == r.named
}

// take judges a file and puts it into force. The caller holds r.mu.
func (r *Rules) take(ctx context.Context, data []byte) error {
	signed, err := bundle.ParseSigned(data)
	if err != nil {
		return r.refuse(ctx, data, err)
	}
	b, err := r.compile(signed.Contents)
	if err != nil {
		return r.refuse(ctx, data, err)
	}
	about := []slog.Attr{slog.Uint64("version", uint64(b.Version)), slog.String("bundle", hex.EncodeToString(b.Hash[:]))}
	if b.Version < r.floor || b.Version == r.floor && b.Hash != r.last {
		err := fmt.Errorf("%w: version %d (%x), in force was %d (%x)", bundle.ErrRollback, b.Version, b.Hash[:4], r.floor, r.last[:4])
		return r.refuse(ctx, data, err, about...)
	}
	if !r.known || b.Hash != r.named {
		if r.once(data, eventWaits) {
			r.event(ctx, eventWaits, "", about...)
		}
		return fmt.Errorf("%w: version %d, %x", ErrWaits, b.Version, b.Hash)
	}
	if data, err = r.prove(ctx, signed, data); err != nil {
		return r.refuse(ctx, data, err, about...)
	}
	// In force first: what it takes away must not wait for a disk.
	r.floor, r.last = b.Version, b.Hash
	r.put(&State{Bundle: b, File: data})
	r.event(ctx, eventInForce, "", about...)
	r.cfg.Log.Info("policy bundle", "version", b.Version, "hash", hex.EncodeToString(b.Hash[:]))
	if err := keepFile(r.cfg.Path, data); err != nil {
		return fmt.Errorf("the bundle is in force, but not on disk: %w", err)
	}
	return nil
}

// compile compiles contents. What was in force last stays good after dates in it have
// passed; what is new is judged by them. The caller holds r.mu.
func (r *Rules) compile(c *bundle.Contents) (*bundle.Bundle, error) {
	hash, err := c.Hash()
	if err == nil && r.floor > 0 && hash == r.last {
		return bundle.Reopen(c)
	}
	return bundle.Compile(c, r.cfg.Now())
}

// prove checks the signatures: those in the file or, where they are too few, those
// that the record holds about the same bundle. It returns the file with those that
// prove it.
func (r *Rules) prove(ctx context.Context, signed *bundle.Signed, data []byte) ([]byte, error) {
	err := signed.CheckSignatures(r.cfg.Verify)
	if err == nil || r.cfg.Statements == nil {
		return data, err
	}
	hash, errHash := signed.Contents.Hash()
	recorded, errRecord := r.cfg.Statements(ctx, hash)
	if errHash != nil || errRecord != nil || len(recorded) == 0 {
		return data, errors.Join(err, errHash, errRecord)
	}
	whole := &bundle.Signed{Contents: signed.Contents, Statements: recorded}
	if err := whole.CheckSignatures(r.cfg.Verify); err != nil {
		return data, err
	}
	return whole.Marshal()
}

// miss notes that what is in force is not here. The caller holds r.mu.
func (r *Rules) miss(ctx context.Context) {
	next := &State{Missing: true}
	if r.state != nil {
		next.Bundle, next.File = r.state.Bundle, r.state.File
	}
	r.put(next)
	r.event(ctx, eventMissing, "bundle_not_in_force", slog.String("bundle", hex.EncodeToString(r.named[:])))
	r.cfg.Log.Error("the policy bundle in force is not here; no content is relayed until it is", "hash", hex.EncodeToString(r.named[:]))
}

func (r *Rules) put(s *State) {
	r.state = s
	r.apply(s)
}

func (r *Rules) refuse(ctx context.Context, data []byte, err error, attrs ...slog.Attr) error {
	if reason := reasonOf(err); r.once(data, reason) {
		r.event(ctx, eventRefused, reason, append(attrs, slog.String("detail", err.Error()))...)
		r.cfg.Log.Error("a policy bundle is refused; the one in force stays", "error", err.Error())
	}
	return err
}

// once reports whether this is a new complaint about these bytes.
func (r *Rules) once(data []byte, what string) bool {
	h := sha256.New()
	h.Write(data)
	h.Write([]byte(what))
	sum := [32]byte(h.Sum(nil))
	if sum == r.told {
		return false
	}
	r.told = sum
	return true
}

// reasonOf names why a bundle is refused.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, bundle.ErrMalformed):
		return "bundle_malformed"
	case errors.Is(err, bundle.ErrSignatures):
		return "bundle_signatures"
	case errors.Is(err, bundle.ErrTest):
		return "bundle_test_failed"
	case errors.Is(err, bundle.ErrRollback):
		return "bundle_rollback"
	}
	return "bundle_invalid"
}

func (r *Rules) event(ctx context.Context, event, reason string, attrs ...slog.Attr) {
	if err := r.cfg.Event(ctx, event, reason, attrs...); err != nil {
		r.cfg.Log.Error("audit stream", "error", err.Error())
	}
}

// ReadFile reads a signed bundle that an operator laid down.
func ReadFile(path string) ([]byte, error) { return readFile(path) }

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > bundle.MaxSize {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are allowed", path, info.Size(), bundle.MaxSize)
	}
	return os.ReadFile(path)
}
