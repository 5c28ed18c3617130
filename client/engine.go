// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"valise/bulletin"
	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// A Config is what an engine works with. All fields without "optional" are needed.
type Config struct {
	Address identity.Address
	Chain   [][]byte      // the device's certificate and what is above it, DER, leaf first
	Signer  crypto.Signer // the card's slot 9a
	Vault   *vault.Vault
	Trust   *identity.Trust
	Gateway string // host:port, UDP; over TCP the same unless GatewayTCP says otherwise

	// RecordRoot is the root of an authority that may keep a public record (optional).
	// From the first manifest on that the gateway shows, nobody is let in who is not
	// in it. RecordRequired demands that from the beginning.
	RecordRoot     *x509.Certificate
	RecordRequired bool

	// Tightening says what is not sent while no newer bulletin comes (optional): the
	// zero value refuses nothing. Of a heartbeat that is slow it takes account by itself.
	Tightening bulletin.Tightening

	GatewayTCP  string           // optional: host:port over TCP, where UDP is closed
	Nodes       []Endpoint       // optional: further nodes of the gateway
	GatewayName string           // optional: the name in the gateway's certificates; the host by which each is reached
	Agent       string           // optional: this software, for operators
	Log         *slog.Logger     // optional
	Now         func() time.Time // optional
}

// An Engine is one device at work. Its methods may be called by any goroutine.
type Engine struct {
	cfg    Config
	self   identity.DeviceID
	suite  mls.Suite
	groups map[string]*mls.Group // by group id; guarded by mu

	mu            sync.Mutex // guards what follows, and every step of a group
	leaf          [][]byte   // the chain in use; changes at renewal
	meta          meta
	slot          *slot
	ways          ways   // has a lock of its own
	places        places // has a lock of its own
	conversations map[ConversationID]*conversation
	byGroup       map[string]ConversationID
	waiters       map[uint64][]chan error
	uploads       map[MessageID][2]uint64      // done and total
	filesDue      bool                         // the gateway is to be told of files
	filesNews     bool                         // it has told that there is something to ask
	want          map[string]wanted            // groups whose next epoch was announced
	leases        map[string]lease             // groups that this device is asked to remove somebody from
	healings      map[string]*healing          // by group id
	forks         map[string]*fork             // by group id
	behindUs      map[string]time.Time         // groups of which the gateway shows an earlier epoch, since when
	failed        map[ConversationID]int       // resyncs that were not possible
	foundAt       map[ConversationID]time.Time // when this device founds a successor
	hold          time.Time                    // nothing refused is offered again before
	unsure        unsure                       // of a submission that the gateway cannot do
	stock         int                          // one-time KeyPackages at the gateway
	filling       bool                         // the stock is being filled up
	drained       bool                         // all stored deliveries of this connection are in
	link          *link                        // nil while offline
	state         State
	skew          time.Duration
	pauses        map[ConversationID]rest // conversations that rest
	backlog       backlog
	known         known         // of the authority's record
	standings     standings     // of devices and people
	law           law           // what decides about labels
	began         time.Time     // with a reading of the monotonic clock
	patience      time.Duration // recordPatience; tests have less of it

	bell bell

	// crash, set by tests before Run, stops the engine at a named point as a kill
	// would.
	crash atomic.Pointer[func(point string) error]
}

type wanted struct {
	epoch uint64
	since time.Time
}

// New loads what the vault holds, or begins a first life in an empty one.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Engine{
		cfg: cfg, leaf: cfg.Chain,
		groups: map[string]*mls.Group{}, conversations: map[ConversationID]*conversation{}, byGroup: map[string]ConversationID{},
		waiters: map[uint64][]chan error{}, uploads: map[MessageID][2]uint64{}, want: map[string]wanted{}, leases: map[string]lease{}, pauses: map[ConversationID]rest{}, healings: map[string]*healing{},
		forks: map[string]*fork{}, behindUs: map[string]time.Time{}, failed: map[ConversationID]int{}, foundAt: map[ConversationID]time.Time{},
		state: State{Name: StateOffline}, patience: recordPatience, began: time.Now(),
	}
	var err error
	if err := cfg.Tightening.Check(); err != nil {
		return nil, err
	}
	e.cfg.Signer = card{cfg.Signer}
	if e.self, err = identity.DeviceIDOf(cfg.Signer.Public()); err != nil {
		return nil, fmt.Errorf("the device's key: %w", err)
	}
	if e.suite, err = suiteFor(cfg.Signer.Public()); err != nil {
		return nil, err
	}
	at, err := identity.IssuedAt(cfg.Chain)
	if err != nil {
		return nil, err
	}
	own, err := cfg.Trust.Device(cfg.Chain, at)
	if err != nil {
		return nil, fmt.Errorf("this device's own certificate: %w", err)
	}
	if own.ID != e.self || own.Address != cfg.Address {
		return nil, errors.New("the certificate is for another device or address than this one")
	}
	if err := e.load(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// suiteFor is the hybrid suite of the card's curve.
func suiteFor(public crypto.PublicKey) (mls.Suite, error) {
	key, ok := public.(*ecdsa.PublicKey)
	switch {
	case ok && key.Curve == elliptic.P384():
		return mls.SuiteMLKEM1024P384, nil
	case ok && key.Curve == elliptic.P256():
		return mls.SuiteMLKEM768P256, nil
	}
	return 0, identity.ErrKey
}

func (e *Engine) load(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var m *meta
	err := e.cfg.Vault.View(ctx, func(tx *vault.Tx) (err error) {
		if m, err = getJSON[meta](tx, tableMeta, nil, []byte("meta")); err != nil {
			return err
		}
		if e.slot, err = getJSON[slot](tx, tableSlot, nil, []byte("slot")); err != nil {
			return err
		}
		convs, err := listJSON[conversation](tx, tableConversation, nil)
		for _, c := range convs {
			e.take(c.ID, c)
		}
		return errors.Join(err, e.loadBacklog(tx), e.loadHealings(tx), e.loadRecord(tx), e.loadStandings(tx), e.loadLaw(tx))
	})
	if err != nil {
		return err
	}
	if m != nil {
		e.meta = *m
		return nil
	}
	return e.update(func(c *change) error { c.newLife(); return nil })
}

// newLife draws a new incarnation. Events of lives that a vault does not know
// cannot be told from those it knows by number alone, so each life has a name.
func (c *change) newLife() {
	id := make([]byte, 16)
	rand.Read(id)
	c.meta.Incarnation, c.meta.Begun, c.meta.Counter = id, false, 0
	c.meta.Lives = append(c.meta.Lives, life{Name: hex.EncodeToString(id[:4]), After: c.meta.Events})
}

func (e *Engine) now() time.Time { return e.cfg.Now() }

func (e *Engine) chain() [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leaf
}

// Renewed hands the engine a new certificate of the same key. The next connection
// and this device's next commits show it.
func (e *Engine) Renewed(chain [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaf = chain
}

// Self returns this device's id.
func (e *Engine) Self() identity.DeviceID { return e.self }

// identity is what this device brings into groups.
func (e *Engine) identity() mls.Identity {
	return mls.Identity{Credential: mls.X509Credential(e.leaf), Signer: e.cfg.Signer}
}

func (e *Engine) groupConfig() mls.Config {
	return mls.Config{Authenticator: authenticator{e.cfg.Trust}}
}

// group returns a group's state, from memory or the vault; e.mu is held.
func (e *Engine) group(id []byte) (*mls.Group, error) {
	if g := e.groups[string(id)]; g != nil {
		return g, nil
	}
	var g *mls.Group
	err := e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		g, err = e.stored(tx, id)
		return err
	})
	if errors.Is(err, errNoGroup) {
		return nil, err
	}
	if err != nil {
		return nil, loadFailed(id, err)
	}
	e.groups[string(id)] = g
	return g, nil
}

var errNoGroup = errors.New("no state of this group")

// forget drops a group from memory: what is on disk counts.
func (e *Engine) forget(id []byte) { delete(e.groups, string(id)) }

// at is a point where a test may stop the engine.
func (e *Engine) at(point string) error {
	f := e.crash.Load()
	if f == nil || *f == nil {
		return nil
	}
	return (*f)(point)
}

// authenticator answers for the leaves of groups: identity.Trust, as of the day that
// the leaf's certificate was issued. Expiry governs connections, not membership.
type authenticator struct{ trust *identity.Trust }

func (a authenticator) Authenticate(c mls.Credential, _ []byte) error {
	_, err := deviceOf(a.trust, c)
	return err
}

func deviceOf(trust *identity.Trust, c mls.Credential) (*identity.Device, error) {
	if c.Type != mls.CredentialX509 {
		return nil, errors.New("a member without a certificate")
	}
	at, err := identity.IssuedAt(c.Certificates)
	if err != nil {
		return nil, err
	}
	return trust.Device(c.Certificates, at)
}

func (e *Engine) member(m mls.Member) (member, error) {
	d, err := deviceOf(e.cfg.Trust, m.Credential)
	if err != nil {
		return member{}, err
	}
	return member{Device: d.ID, Address: d.Address}, nil
}

// members lists who is in a group now.
func (e *Engine) members(g *mls.Group) ([]member, error) {
	list := g.Members()
	out := make([]member, len(list))
	for i, m := range list {
		var err error
		if out[i], err = e.member(m); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (e *Engine) hello() *wire.Hello {
	h := &wire.Hello{Version: wire.Version, Begin: !e.meta.Begun, Counter: e.meta.Counter, Cursor: e.meta.Cursor, Agent: e.cfg.Agent}
	copy(h.Incarnation[:], e.meta.Incarnation)
	return h
}
