// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"valise/bulletin"
	"valise/gateway/blob"
	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/gateway/rules"
	"valise/identity"
	"valise/transport"
	"valise/wire"
)

// A Config says what a gateway serves. Trust, Domain, Certificate, Store, Dir
// and Audit are required.
type Config struct {
	Trust       *identity.Trust
	Domain      string           // of the people that this gateway serves
	Certificate *tls.Certificate // chain and the signer of the gateway's key
	Store       mailbox.Store
	Dir         string // for transport keys and files; must exist
	// Files is where files lie on their way; nil: in the folder "blobs" of Dir. FilesShared
	// says that other gateways on the same database use it too.
	Files       blob.Place
	FilesShared bool
	Audit       AuditFunc
	Log         *slog.Logger          // nil: slog.Default()
	Metrics     prometheus.Registerer // nil: none
	Denied      map[identity.DeviceID]bool
	Standings   *bulletin.Set // nil: nothing is known yet
	Record      Record        // of the authority; nil: none is served
	Rules       *rules.State  // the policy bundle in force; nil: there is none
	// Tightening says what is refused while no newer bulletin comes; the zero value
	// is for a gateway that follows no authority.
	Tightening bulletin.Tightening
	// Behind is called when another gateway on the store has newer standings, or may have: they
	// are to be asked for at once. It must return soon. Nil does nothing.
	Behind    func()
	Authority string // host:port that devices reach through tunnels; empty: none
	Limits    Limits
	Batch     int // submissions in one transaction; 0 means mailbox.DefaultBatch
}

// A Gateway relays for one domain.
type Gateway struct {
	cfg         Config
	limits      Limits
	log         *slog.Logger
	strangers   *auditor // events of connections whose device is not proven
	metrics     *metrics
	box         *mailbox.Box
	groups      *group.Registry
	blobs       *blob.Store
	allowances  allowances
	attempts    attempts
	orders      attempts // tunnels that devices opened
	duties      *duties
	holds       *holds
	sweep       *sweep
	circles     circles
	others      *others
	lawAt       atomic.Int64 // when bundle or standings changed last, milliseconds since 1970
	clock       func() time.Time
	turns       turns
	keys        transportKeys
	certificate atomic.Pointer[tls.Certificate]
	denied      atomic.Pointer[denyList]
	set         atomic.Pointer[bulletin.Set]
	rules       atomic.Pointer[rules.State]
	arrival     atomic.Pointer[bulletin.Arrival]
	started     time.Time    // with a reading of the monotonic clock
	open        atomic.Int64 // connections that passed the handshake
	door        *door        // handshakes that are not complete
	storm       atomic.Int64 // handshakes since memory was given back
	litter      atomic.Int64 // handshakes since their garbage was last collected for their sake

	mu       sync.Mutex
	sessions map[identity.DeviceID]*session // guarded by mu
	counts   map[identity.DeviceID]int      // guarded by mu; connections that passed the handshake
	served   map[*session]struct{}          // guarded by mu; the same
	tunnels  map[identity.DeviceID]bool     // guarded by mu; open ones
	draining bool                           // guarded by mu
	active   sync.WaitGroup                 // connections being served
}

// New builds a gateway. Nothing happens before Run and Serve.
func New(cfg Config) (*Gateway, error) {
	if cfg.Trust == nil || cfg.Domain == "" || cfg.Certificate == nil || cfg.Store == nil || cfg.Dir == "" || cfg.Audit == nil {
		return nil, errors.New("gateway: trust, domain, certificate, store, directory and audit stream must be given")
	}
	g := &Gateway{
		cfg: cfg, limits: cfg.Limits.withDefaults(), log: cfg.Log, sessions: make(map[identity.DeviceID]*session),
		counts: make(map[identity.DeviceID]int), served: make(map[*session]struct{}), tunnels: make(map[identity.DeviceID]bool), clock: time.Now, turns: make(turns, drains), started: time.Now(),
	}
	g.door = newDoor(g.limits)
	g.arrival.Store(new(bulletin.Arrival))
	if err := cfg.Tightening.Check(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if g.log == nil {
		g.log = slog.Default()
	}
	g.allowances = allowances{
		limits: &g.limits, all: make(map[identity.DeviceID]*allowance),
		audit: func() *auditor { return newAuditor(cfg.Audit, g.log) },
	}
	g.attempts = attempts{limit: rate.Limit(g.limits.Commits), burst: g.limits.CommitBurst, all: make(map[identity.DeviceID]map[string]*rate.Limiter)}
	g.orders = attempts{limit: rate.Every(tunnelPause), burst: tunnelBurst, all: make(map[identity.DeviceID]map[string]*rate.Limiter)}
	g.duties = newDuties(func(id identity.DeviceID, a identity.Address) bool { return against(g.Standings(), id, a) != "" }, g.listening)
	g.others = newOthers(g)
	g.holds = &holds{
		store: cfg.Store, node: g.others.node, behind: g.behind, set: g.Standings, log: g.log, news: make(chan struct{}, 1),
		tell: func(event string, id mailbox.Device) {
			g.record(event, "", slog.String("device", identity.DeviceID(id).String()))
		},
	}
	g.strangers = newAuditor(cfg.Audit, g.log)
	g.certificate.Store(cfg.Certificate)
	g.SetDenied(cfg.Denied)
	if cfg.Standings == nil {
		cfg.Standings = bulletin.NewSet()
	}
	g.SetStandings(cfg.Standings)
	g.rules.Store(cfg.Rules)
	var err error
	if g.keys, err = transportKeysOf(cfg); err != nil {
		return nil, err
	}
	if g.blobs, err = g.openFiles(); err != nil {
		return nil, err
	}
	g.metrics = newMetrics(cfg.Metrics, g)
	g.box = mailbox.New(mailbox.Config{Store: cfg.Store, Batch: cfg.Batch, Observe: g.metrics.batch, Hear: g.others.hear})
	g.groups = group.New(group.Config{
		Trust: cfg.Trust, Store: cfg.Store, Box: g.box,
		Denied:  func(d *identity.Device) bool { return g.deniedNow()[d.ID] || outOf(g.Standings(), d) != "" },
		Changed: g.duties.look,
		Join:    g.admitJoin,
	})
	g.sweep = &sweep{store: cfg.Store, groups: g.groups, set: g.Standings, denied: g.deniedNow, room: g.duties.room, log: g.log, news: make(chan struct{}, 1), page: sweepPage}
	return g, nil
}

// Run commits submissions and does maintenance until ctx ends. Everything that
// was queued before that is committed.
func (g *Gateway) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return g.box.Run(ctx) })
	work.Go(func() error { return g.tidy(ctx) })
	work.Go(func() error { return g.duties.run(ctx) })
	work.Go(func() error { return g.holds.run(ctx) })
	work.Go(func() error { return g.sweep.run(ctx) })
	work.Go(func() error { return g.watchAge(ctx) })
	work.Go(func() error { return g.expireMail(ctx) })
	work.Go(func() error { return g.giveBack(ctx) })
	work.Go(func() error { return g.others.run(ctx) })
	return work.Wait()
}

// Serve accepts connections on a UDP socket until ctx ends.
func (g *Gateway) Serve(ctx context.Context, conn net.PacketConn) error {
	socket := &quic.Transport{
		Conn: transport.Socket(conn, transport.ServerReads), StatelessResetKey: &g.keys.reset, TokenGeneratorKey: &g.keys.token, ConnContext: g.connContext,
		VerifySourceAddress: g.mustProveAddress,
	}
	defer socket.Close()
	listener, err := socket.Listen(g.tlsConfig(), g.limits.quicConfig())
	if err != nil {
		return err
	}
	defer listener.Close()
	for {
		c, err := listener.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				// Sessions end before their socket does.
				drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), replaceTimeout)
				defer cancel()
				return g.Drain(drain)
			}
			return err
		}
		a, ok := c.Context().Value(attemptKey{}).(*attempt)
		if !ok || !g.enter() {
			_ = c.CloseWithError(quic.ApplicationErrorCode(wire.CloseShutdown), "shutting down")
			continue
		}
		// Never here: the queue of accepted connections is short.
		go func() {
			defer g.active.Done()
			g.serve(transport.QUIC(c), a)
		}()
	}
}

// comeBack is when one of so many devices is to come back: each at another time, as
// fast as one gateway takes them in. To another gateway it may come before this one has
// started again.
func (g *Gateway) comeBack(devices int) time.Duration {
	spread := rand.N(max(backLeast, time.Duration(devices)*time.Second/backRate))
	if g.others.node != nil {
		return max(time.Millisecond, spread)
	}
	return backLeast + spread
}

// enter counts a connection in, unless the gateway is stopping.
func (g *Gateway) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return false
	}
	g.active.Add(1)
	return true
}

// Drain closes all connections, tells devices to come back later, and returns
// when nothing of theirs is left undone or ctx ends. Call it before the
// contexts of Serve and Run end.
func (g *Gateway) Drain(ctx context.Context) error {
	g.mu.Lock()
	g.draining = true
	for s := range g.served {
		_ = s.conn.CloseWithError(wire.CloseShutdown, wire.BackIn(g.comeBack(len(g.served))))
	}
	g.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		g.active.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SetCertificate replaces the certificate for new connections.
func (g *Gateway) SetCertificate(c *tls.Certificate) { g.certificate.Store(c) }

// SetDenied replaces the deny list and closes the connections of those on it.
func (g *Gateway) SetDenied(list map[identity.DeviceID]bool) {
	denied := denyList(list)
	g.denied.Store(&denied)
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.served {
		if denied[s.device.ID] {
			s.close(wire.CloseNotAdmitted, "denied")
		}
	}
}

func (g *Gateway) deniedNow() denyList { return *g.denied.Load() }

// now is the clock that certificates are judged by.
func (g *Gateway) now() time.Time { return g.clock() }

// tidy does what must stay off the path of messages.
func (g *Gateway) tidy(ctx context.Context) error {
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		g.tidyOnce(ctx)
	}
}

// giveBack returns memory to the system when many handshakes are over: each leaves
// some tens of kilobytes of garbage, and the idle connections that follow make no
// reason to collect it. It looks until ctx ends.
func (g *Gateway) giveBack(ctx context.Context) error {
	ticker := time.NewTicker(stormPause)
	defer ticker.Stop()
	last := int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if n := g.storm.Load(); n < stormSize || n != last || g.door.count() > 0 {
			last = n
			continue
		}
		g.storm.Store(0)
		debug.FreeOSMemory()
	}
}

// keepDense collects the garbage of handshakes while many come, earlier than a steady
// heap would be: each leaves twice as much of it as what stays of the connection, side by
// side, and a page goes back to the system only when nothing on it stays.
func (g *Gateway) keepDense() {
	n := g.litter.Add(1)
	if n >= max(stormLitter, g.open.Load()/3) && g.litter.CompareAndSwap(n, 0) {
		go runtime.GC()
	}
}

func (g *Gateway) tidyOnce(ctx context.Context) {
	if err := g.blobs.Expire(ctx, g.now()); err != nil && ctx.Err() == nil {
		g.log.Error("expired files could not be removed", "error", err)
	}
	// Readers that follow on one another keep the write-ahead log from ever
	// being begun anew: without this it would grow until the disk is full.
	if err := g.cfg.Store.Tidy(ctx); err != nil && ctx.Err() == nil {
		g.log.Warn("the store was not tidied; the next round tries again", "error", err)
	}
	totals, err := g.cfg.Store.Totals(ctx)
	if err != nil && ctx.Err() == nil {
		g.log.Error("the store's sizes could not be read", "error", err)
	}
	if err == nil {
		g.metrics.totals(totals)
	}
	if node, ok := g.cfg.Store.(mailbox.Node); ok {
		all, err := node.Nodes(ctx)
		if err == nil {
			g.metrics.gateways(all)
		} else if ctx.Err() == nil {
			g.log.Warn("the gateways of this database were not counted", "error", err)
		}
	}
}

// Check says whether the gateway can do its work, for /healthz.
func (g *Gateway) Check(ctx context.Context) error {
	_, err := g.cfg.Store.Known(ctx, nil)
	return err
}
