// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"valise/bulletin"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
	"valise/transport"
	"valise/wire"
)

const (
	patience      = 20 * time.Second
	auditPatience = 8 * time.Second
)

// auditLog keeps the audit stream of a gateway under test.
type auditLog struct {
	mu    sync.Mutex
	lines []auditLine // guarded by mu
	more  chan struct{}
}

type auditLine struct {
	event, reason string
	attrs         map[string]string
}

func (a *auditLog) write(_ context.Context, event, reason string, attrs ...slog.Attr) error {
	line := auditLine{event, reason, make(map[string]string)}
	for _, attr := range attrs {
		line.attrs[attr.Key] = attr.Value.String()
	}
	a.mu.Lock()
	a.lines = append(a.lines, line)
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default:
	}
	return nil
}

func (a *auditLog) count(event, reason string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, l := range a.lines {
		if l.event == event && l.reason == reason {
			n++
		}
	}
	return n
}

// want waits for a line and fails with what came instead.
func (a *auditLog) want(t *testing.T, event, reason string) auditLine {
	t.Helper()
	deadline := time.After(auditPatience)
	for {
		a.mu.Lock()
		for _, l := range a.lines {
			if l.event == event && l.reason == reason {
				a.mu.Unlock()
				return l
			}
		}
		lines := append([]auditLine(nil), a.lines...)
		a.mu.Unlock()
		select {
		case <-a.more:
		case <-deadline:
			t.Fatalf("no audit line %s/%s; have %v", event, reason, lines)
		}
	}
}

// wantCount waits until a line is there so many times.
func (a *auditLog) wantCount(t *testing.T, event, reason string, want int) {
	t.Helper()
	deadline, late := time.After(auditPatience), false
	for !late && a.count(event, reason) < want {
		select {
		case <-a.more:
		case <-deadline:
			late = true
		}
	}
	if n := a.count(event, reason); n != want {
		t.Errorf("%d lines %s/%s, want %d", n, event, reason, want)
	}
}

type testGateway struct {
	*Gateway
	authority *authority
	address   string
	audit     *auditLog
	dir       string
	stop      func() // orderly; may be called twice

	mu    sync.Mutex
	conns []transport.Conn // guarded by mu; connections that devices made
}

// cut ends all devices' connections at their side, as when a network tells
// them that the gateway is gone.
func (g *testGateway) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		_ = c.CloseWithError(0, "")
	}
	g.conns = nil
}

// network is how devices reach the gateway.
type network string

const (
	overQUIC network = ""
	overTCP  network = "tcp:"
)

// overBoth runs a test on both transports.
func overBoth(t *testing.T, test func(*testing.T, network)) {
	t.Run("quic", func(t *testing.T) { test(t, overQUIC) })
	t.Run("tcp", func(t *testing.T) { test(t, overTCP) })
}

type gatewayOptions struct {
	network   network
	tunnel    string
	dir       string
	authority *authority
	quota     mailbox.Quota
	limits    Limits
	denied    map[identity.DeviceID]bool
	wrap      func(mailbox.Store) mailbox.Store
	clock     func() time.Time
	record    Record
	period    time.Duration // of leases; 0: leaseTime
	standings *bulletin.Set
	tighten   bulletin.Tightening
	swept     chan<- int // how many groups each walk looked at
	database  string     // PostgreSQL that it shares with others, as the node of a name
	node      string
	behind    func()
}

func startGateway(t testing.TB, o gatewayOptions) *testGateway {
	t.Helper()
	if o.authority == nil {
		o.authority = newAuthority(t, "interieur.example")
	}
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	if o.limits.Rate == 0 {
		o.limits.Rate, o.limits.Burst = 1e6, 1e6
	}
	if o.limits.Commits == 0 {
		o.limits.Commits, o.limits.CommitBurst = 1e6, 1e6
	}
	store := openStore(t, o)
	kept := store
	if o.wrap != nil {
		kept = o.wrap(store)
	}
	audit := &auditLog{more: make(chan struct{}, 1)}
	g, err := New(Config{
		Authority: o.tunnel, Trust: o.authority.trust(), Domain: o.authority.domain, Certificate: o.authority.gateway(t, "127.0.0.1"),
		Behind: o.behind, Store: kept, Dir: o.dir, Audit: audit.write, Denied: o.denied, Limits: o.limits, Record: o.record, Tightening: o.tighten, Standings: o.standings,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.swept != nil {
		g.sweep.page, g.sweep.swept = 2, func(n int) { o.swept <- n }
	}
	if o.period > 0 {
		g.duties.period = o.period
	}
	if o.clock != nil {
		g.clock = o.clock
	}
	conn, listener := listenBoth(t)
	serving, endServing := context.WithCancel(context.Background())
	running, endRunning := context.WithCancel(context.Background())
	var servers, runners sync.WaitGroup
	servers.Go(func() {
		if err := g.Serve(serving, conn); err != nil {
			t.Error(err)
		}
	})
	servers.Go(func() {
		if err := g.ServeTCP(serving, listener); err != nil {
			t.Error(err)
		}
	})
	runners.Go(func() { _ = g.Run(running) })
	var once sync.Once
	stop := func() {
		once.Do(func() {
			endServing()
			servers.Wait()
			endRunning()
			runners.Wait()
			if err := store.Close(); err != nil {
				t.Error(err)
			}
			_ = conn.Close()
		})
	}
	t.Cleanup(stop)
	return &testGateway{Gateway: g, authority: o.authority, address: string(o.network) + conn.LocalAddr().String(), audit: audit, dir: o.dir, stop: stop}
}

// listenBoth takes one port number for both transports.
func listenBoth(t testing.TB) (*net.UDPConn, *net.TCPListener) {
	t.Helper()
	for {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		at := conn.LocalAddr().(*net.UDPAddr)
		if listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: at.IP, Port: at.Port}); err == nil {
			return conn, listener
		}
		_ = conn.Close() // the number is taken there: another one
	}
}

// testDevice speaks the protocol with software keys and a ratchet of its own.
type testDevice struct {
	t       testing.TB
	gw      *testGateway
	local   string
	id      identity.DeviceID
	key     *ecdsa.PrivateKey
	chain   [][]byte
	mls     mls.Identity
	cfg     mls.Config
	kps     []*mls.KeyPackage
	secrets []*mls.KeyPackageSecrets

	incarnation [16]byte
	counter     uint64
	link        *link
}

// link is one connection.
type link struct {
	conn       transport.Conn
	control    transport.Stream
	down       transport.Stream
	welcome    *wire.Welcome
	said       wire.Last // guarded by mu; the last message written
	deliveries chan *wire.Deliver
	notices    chan wire.NoticeCode
	leases     chan *wire.Lease
	drainedAt  atomic.Int64 // deliveries before NoticeDrained, plus one

	mu      sync.Mutex
	lastID  uint32                      // guarded by mu
	waiting map[uint32]chan wire.Answer // guarded by mu
}

type mlsAuth struct{ trust *identity.Trust }

func (a mlsAuth) Authenticate(c mls.Credential, _ []byte) error {
	at, err := identity.IssuedAt(c.Certificates)
	if err != nil {
		return err
	}
	_, err = a.trust.Device(c.Certificates, at)
	return err
}

func newDevice(t testing.TB, gw *testGateway, local string) *testDevice {
	t.Helper()
	key := newKey(t)
	return newDeviceOf(t, gw, gw.authority, local, key, -time.Hour, 100*time.Hour)
}

func newDeviceOf(t testing.TB, gw *testGateway, a *authority, local string, key *ecdsa.PrivateKey, from, to time.Duration) *testDevice {
	t.Helper()
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	chain := a.device(t, local, key, from, to)
	d := &testDevice{
		t: t, gw: gw, local: local, id: id, key: key, chain: chain,
		mls: mls.Identity{Credential: mls.X509Credential(chain), Signer: key},
		cfg: mls.Config{Authenticator: mlsAuth{gw.authority.trust()}},
	}
	_, _ = rand.Read(d.incarnation[:])
	return d
}

func (d *testDevice) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{wire.Protocol},
		Certificates:       []tls.Certificate{{Certificate: d.chain, PrivateKey: d.key}},
		InsecureSkipVerify: true, // the check below takes its place
		VerifyConnection: func(s tls.ConnectionState) error {
			chain := [][]byte{}
			for _, c := range s.PeerCertificates {
				chain = append(chain, c.Raw)
			}
			_, err := d.gw.authority.trust().Gateway(chain, "127.0.0.1", time.Now())
			return err
		},
	}
}

func dialRaw(t testing.TB, address string, config *tls.Config) (transport.Conn, error) {
	t.Helper()
	return dialWithin(address, config, patience)
}

func dialWithin(address string, config *tls.Config, limit time.Duration) (transport.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if tcp, ok := strings.CutPrefix(address, string(overTCP)); ok {
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", tcp)
		if err != nil {
			return nil, err
		}
		return transport.OverTLS(conn.(*tls.Conn), transport.Device, patience), nil
	}
	conn, err := quic.DialAddr(ctx, address, config, &quic.Config{
		HandshakeIdleTimeout: patience, MaxIdleTimeout: patience,
		// As the gateway's: room for all streams, so that unread files do not
		// hold up messages.
		InitialStreamReceiveWindow: 256 << 10, MaxStreamReceiveWindow: 1 << 20,
		InitialConnectionReceiveWindow: 8 << 20, MaxConnectionReceiveWindow: 8 << 20,
	})
	if err != nil {
		return nil, err
	}
	return transport.QUIC(conn), nil
}

// connect dials, says Hello and waits for Welcome.
func (d *testDevice) connect(begin bool, cursor uint64) *wire.Welcome {
	d.t.Helper()
	l, err := d.tryConnect(begin, cursor)
	if err != nil {
		d.t.Fatalf("%s: connect: %v", d.local, err)
	}
	d.link = l
	return l.welcome
}

func (d *testDevice) tryConnect(begin bool, cursor uint64) (*link, error) {
	return d.tryConnectWithin(patience, begin, cursor)
}

func (d *testDevice) tryConnectWithin(limit time.Duration, begin bool, cursor uint64) (*link, error) {
	conn, err := dialWithin(d.gw.address, d.tlsConfig(), limit)
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	d.gw.mu.Lock()
	d.gw.conns = append(d.gw.conns, conn)
	d.gw.mu.Unlock()
	l := &link{
		conn: conn, waiting: make(map[uint32]chan wire.Answer),
		deliveries: make(chan *wire.Deliver, 4096), notices: make(chan wire.NoticeCode, 64), leases: make(chan *wire.Lease, 64),
	}
	if l.control, err = l.open(wire.StreamControl, &wire.Hello{
		Version: wire.Version, Incarnation: d.incarnation, Begin: begin, Counter: d.counter, Cursor: cursor, Agent: "test",
	}); err != nil {
		return nil, err
	}
	_ = l.control.SetReadDeadline(time.Now().Add(limit))
	frame, err := wire.Read(l.control)
	if err != nil {
		return nil, err
	}
	_ = l.control.SetReadDeadline(time.Time{})
	welcome, ok := frame.(*wire.Welcome)
	if !ok {
		return nil, errors.New("no Welcome")
	}
	l.welcome = welcome
	go l.readAnswers()
	return l, nil
}

func (l *link) open(kind wire.StreamKind, first wire.Frame) (transport.Stream, error) {
	stream, err := l.conn.OpenStream(context.Background())
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write([]byte{byte(kind)}); err != nil {
		return nil, err
	}
	return stream, wire.Write(stream, first)
}

func (l *link) readAnswers() {
	for {
		frame, err := wire.Read(l.control)
		if err != nil {
			l.mu.Lock()
			for _, c := range l.waiting {
				close(c)
			}
			l.waiting = nil
			l.mu.Unlock()
			return
		}
		answer, ok := frame.(wire.Answer)
		if !ok {
			continue
		}
		l.mu.Lock()
		c := l.waiting[answer.AnswerTo()]
		delete(l.waiting, answer.AnswerTo())
		l.mu.Unlock()
		if c != nil {
			c <- answer
		}
	}
}

// start sends a request; its answer comes through the channel, which is closed
// when the connection ends.
func (l *link) start(r wire.Request) chan wire.Answer {
	c := make(chan wire.Answer, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		close(c)
		return c
	}
	l.lastID++
	r.SetRequestID(l.lastID)
	l.waiting[l.lastID] = c
	if err := l.write(r); err != nil {
		delete(l.waiting, l.lastID)
		close(c)
	}
	return c
}

func (d *testDevice) ask(r wire.Request) wire.Answer {
	d.t.Helper()
	select {
	case a, ok := <-d.link.start(r):
		if !ok {
			d.t.Fatalf("%s: the connection ended before the answer", d.local)
		}
		return a
	case <-time.After(patience):
		d.t.Fatalf("%s: no answer to %T", d.local, r)
	}
	return nil
}

// code asks and returns the code of the Result.
func (d *testDevice) code(r wire.Request) wire.Code {
	d.t.Helper()
	result, ok := d.ask(r).(*wire.Result)
	if !ok {
		d.t.Fatalf("%s: %T was not answered by a Result", d.local, r)
	}
	return result.Code
}

// submit gives a submission the next counter; a refused one does not use it up.
func (d *testDevice) submit(s wire.Submission) wire.Code {
	d.t.Helper()
	s.SetSubmissionCounter(d.counter + 1)
	code := d.code(s)
	if code == wire.OK {
		d.counter++
	}
	return code
}

func (d *testDevice) must(s wire.Submission) {
	d.t.Helper()
	if code := d.submit(s); code != wire.OK {
		d.t.Fatalf("%s: %T: %v", d.local, s, code)
	}
}

// listen opens the delivery stream.
func (d *testDevice) listen(cursor uint64) {
	d.t.Helper()
	d.resume(&wire.Resume{Cursor: cursor})
}

func (d *testDevice) resume(r *wire.Resume) {
	d.t.Helper()
	down, err := d.link.open(wire.StreamDelivery, r)
	if err != nil {
		d.t.Fatal(err)
	}
	d.link.down = down
	l := d.link
	go func() {
		defer close(l.deliveries)
		var last wire.Last
		for n := int64(0); ; {
			frame, err := last.Read(down)
			if err != nil {
				return
			}
			switch f := frame.(type) {
			case *wire.Deliver:
				n++
				l.deliveries <- f
			case *wire.Lease:
				l.leases <- f
			case *wire.Notice:
				if f.Code == wire.NoticeDrained {
					l.drainedAt.Store(n + 1)
				}
				l.notices <- f.Code
			}
		}
	}()
}

func (d *testDevice) next() *wire.Deliver {
	d.t.Helper()
	select {
	case m, ok := <-d.link.deliveries:
		if !ok {
			d.t.Fatalf("%s: the delivery stream ended", d.local)
		}
		return m
	case <-time.After(patience):
		d.t.Fatalf("%s: nothing was delivered", d.local)
	}
	return nil
}

func (d *testDevice) nothing(wait time.Duration) {
	d.t.Helper()
	select {
	case m, ok := <-d.link.deliveries:
		if ok {
			d.t.Fatalf("%s: delivery %d of kind %d was not expected", d.local, m.Number, m.Kind)
		}
	case <-time.After(wait):
	}
}

func (d *testDevice) ack(number uint64) {
	d.t.Helper()
	if err := wire.Write(d.link.down, &wire.Ack{Number: number}); err != nil {
		d.t.Fatal(err)
	}
}

// closed waits for the connection to end and returns the code.
func (l *link) closed(t testing.TB) wire.CloseCode {
	t.Helper()
	select {
	case <-l.conn.Context().Done():
	case <-time.After(patience):
		t.Fatal("the connection is still open")
	}
	err := context.Cause(l.conn.Context())
	end := transport.ClosedBy(err)
	if end == nil {
		t.Fatalf("closed by %v", err)
	}
	return end.Code
}
