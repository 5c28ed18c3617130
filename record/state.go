// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"valise/attest"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
)

// A State is what follows from the leaves applied so far.
type State struct {
	root     *x509.Certificate
	rootHash [32]byte
	trust    *identity.Trust // nil before the founding

	tree ledger.Builder
	last time.Time // of the newest leaf that has one

	founding    *manifest.Founding
	founders    map[[32]byte]bool // SHA-256 of the TBSCertificates of the first officers
	manifest    *manifest.Manifest
	manifestRaw []byte

	officers    map[identity.Address]Officer
	officerKeys map[identity.DeviceID]identity.Address // of all that ever were
	people      map[identity.Address]Person
	invitations map[string]Invitation
	profiles    map[string]Profile

	endorsements Rule[*attest.Endorsements]
	appraisal    Rule[*attest.AppraisalPolicy]
	bundle       Bundle

	seen     map[string]int64 // ids of statements
	ballots  map[[32]byte]*Ballot
	grants   map[identity.DeviceID][]*grant
	requests map[string][]*grant
	refusals map[string]int64 // requests that were refused

	keys         map[identity.DeviceID]Key // of devices and officers with certificates
	byAddress    map[identity.Address][]identity.DeviceID
	serials      map[string]int64 // of certificates
	causes       map[cause]Standing
	listed       map[identity.DeviceID][]cause // serials and roots that name the device
	appointments map[identity.Address][32]byte // the last change of each
	rosterBodies map[identity.Address][32]byte

	undo    []func()
	keeping bool // the journal is kept until Commit or Rollback
}

// New returns the state before the first leaf, for everybody who pins this root.
func New(root *x509.Certificate) *State {
	return &State{
		root: root, rootHash: sha256.Sum256(root.Raw),
		founders: make(map[[32]byte]bool),
		officers: make(map[identity.Address]Officer), officerKeys: make(map[identity.DeviceID]identity.Address),
		people: make(map[identity.Address]Person), invitations: make(map[string]Invitation), profiles: make(map[string]Profile),
		seen: make(map[string]int64), ballots: make(map[[32]byte]*Ballot),
		grants: make(map[identity.DeviceID][]*grant), requests: make(map[string][]*grant), refusals: make(map[string]int64),
		keys: make(map[identity.DeviceID]Key), byAddress: make(map[identity.Address][]identity.DeviceID), serials: make(map[string]int64),
		causes: make(map[cause]Standing), listed: make(map[identity.DeviceID][]cause),
		appointments: make(map[identity.Address][32]byte), rosterBodies: make(map[identity.Address][32]byte),
	}
}

// Size returns the number of leaves applied.
func (s *State) Size() int64 { return s.tree.Size() }

// Head returns the tree of the leaves applied, computed from them and nothing else.
func (s *State) Head() ledger.Head { return s.tree.Head() }

// Time returns the newest leaf's time.
func (s *State) Time() time.Time { return s.last }

// Root returns the pinned root.
func (s *State) Root() *x509.Certificate { return s.root }

// Founding returns the founding record, nil before it.
func (s *State) Founding() *manifest.Founding { return s.founding }

// Lone reports whether the authority was founded without officers. Before the
// founding record it is false.
func (s *State) Lone() bool { return s.founding != nil && s.founding.Lone() }

// Manifest returns the newest manifest and its bytes, nil before the first.
func (s *State) Manifest() (*manifest.Manifest, []byte) { return s.manifest, s.manifestRaw }

// Apply verifies the next leaf and applies it. The error is a *Finding, and then the
// state is as it was before.
func (s *State) Apply(i ledger.Item) error {
	mark := len(s.undo)
	if f := s.apply(i); f != nil {
		s.revert(mark)
		f.Index = i.Index
		return f
	}
	if !s.keeping {
		s.undo = s.undo[:0]
	}
	return nil
}

func (s *State) apply(i ledger.Item) *Finding {
	switch {
	case i.Entry == nil || i.Index != s.Size():
		return find(OutOfOrder, "leaf %d comes where leaf %d should", i.Index, s.Size())
	case !i.Entry.Records(i.Payload):
		return find(WrongPayload, "the entry is not that of the payload beside it")
	case i.Entry.Time.IsZero() && s.founding != nil && !s.Lone():
		return find(NoTime, "the entry has no time")
	case !i.Entry.Time.IsZero() && i.Entry.Time.Before(s.last):
		return find(TimeBackwards, "its time %s is before that of the leaf before, %s", i.Entry.Time.Format(time.RFC3339), s.last.Format(time.RFC3339))
	}
	at := i.Entry.Time
	if at.IsZero() {
		at = s.last
	}
	if f := s.decide(i, at); f != nil {
		return f
	}
	s.advance(i.Entry, at)
	return nil
}

func (s *State) decide(i ledger.Item, at time.Time) *Finding {
	switch i.Entry.Kind {
	case ledger.KindFounding:
		return s.found(i)
	case ledger.KindManifest:
		return s.renew(i)
	case ledger.KindIssuance:
		return s.issue(i, at)
	case ledger.KindStatement:
		return s.state(i, at)
	}
	return find(BadRecord, "%v means nothing here", i.Entry.Kind)
}

// advance counts a leaf, whatever it says.
func (s *State) advance(e *ledger.Entry, at time.Time) {
	before := *s.tree.Clone()
	s.undo = append(s.undo, func() { s.tree = before })
	_ = s.tree.Add(e.Leaf()) // a tree of 2^48 leaves is full, and out of reach
	if at.After(s.last) {
		assign(s, &s.last, at)
	}
}

// Begin starts to keep a journal, so that Rollback can take back what is applied
// from here on.
func (s *State) Begin() {
	s.undo, s.keeping = s.undo[:0], true
}

// Commit ends the journal; what was applied stays.
func (s *State) Commit() {
	s.undo, s.keeping = nil, false
}

// Rollback takes back everything since Begin.
func (s *State) Rollback() {
	s.revert(0)
	s.undo, s.keeping = nil, false
}

func (s *State) revert(mark int) {
	for i := len(s.undo) - 1; i >= mark; i-- {
		s.undo[i]()
	}
	s.undo = s.undo[:mark]
}

// put, drop and assign are the only ways in which a State changes. What they store
// is never changed in place afterwards.

func put[K comparable, V any](s *State, m map[K]V, k K, v V) {
	old, had := m[k]
	s.undo = append(s.undo, func() {
		if had {
			m[k] = old
		} else {
			delete(m, k)
		}
	})
	m[k] = v
}

func drop[K comparable, V any](s *State, m map[K]V, k K) {
	if old, had := m[k]; had {
		s.undo = append(s.undo, func() { m[k] = old })
		delete(m, k)
	}
}

func assign[T any](s *State, p *T, v T) {
	old := *p
	s.undo = append(s.undo, func() { *p = old })
	*p = v
}

// with returns a list with one more element, leaving the list as it is.
func with[T any](list []T, v T) []T {
	return append(list[:len(list):len(list)], v)
}

var errNotTBS = errors.New("not a TBSCertificate")
