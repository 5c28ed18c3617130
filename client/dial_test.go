// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"valise/transport"
	"valise/wire"
)

// countingSigner counts what a card would sign.
type countingSigner struct {
	crypto.Signer
	signed atomic.Int32
}

func (c *countingSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.signed.Add(1)
	return c.Signer.Sign(rand, digest, opts)
}

// Where UDP is closed a device connects over TCP, sends text and files, remembers it,
// and goes back to QUIC when UDP passes again.
func TestFallsBackToTCPAndBack(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.noUDP, w.believe = true, 4*time.Second
	w.start()
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	if s := alice.State(); s.Transport != wayTCP || s.Name != StateOnline {
		t.Fatalf("state %+v", s)
	}
	conv := alice.with(t, bob)
	alice.says(conv, "over TCP")
	bob.gets("over TCP")
	path, data := randomFile(t, 3<<20)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := alice.SendFile(ctx, Draft{Conversation: conv}, path, nil)
	if err == nil {
		err = alice.Wait(ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	bob.until("hears of the file", func() bool { return bob.fileEvent() != nil })
	got, err := bob.Fetch(ctx, bob.fileEvent().Cursor, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if have, err := os.ReadFile(got); err != nil || !bytes.Equal(have, data) {
		t.Fatalf("the file differs, %v", err)
	}
	if first, _ := alice.ways.first(alice.ways.until().Add(-time.Millisecond)); first != wayTCP {
		t.Errorf("%s is tried first", first)
	}
	w.stop()
	w.noUDP = false
	w.start()
	alice.until("is back on QUIC", func() bool { return alice.State().Transport == wayQUIC })
	bob.until("is back on QUIC", func() bool { return bob.State().Transport == wayQUIC })
	alice.says(conv, "over QUIC")
	bob.gets("over TCP", "over QUIC")
}

// rests ends what a device does by itself and gives it another signer, before inner.
func (d *device) rests(signer crypto.Signer, inner *crypto.Signer) *Engine {
	d.t.Helper()
	d.cancel()
	<-d.ended
	d.ended = nil
	d.t.Cleanup(func() { d.vault.Lock() })
	*inner = d.key
	d.cfg.Signer = signer
	return d.Engine
}

// Where both are open QUIC is taken, and the card signs once for it.
func TestTakesQUICWhereBothAreOpen(t *testing.T) {
	w := newWorld(t)
	signer := &countingSigner{}
	e := w.device("alice").reachable().rests(signer, &signer.Signer)
	l, err := e.reach(t.Context(), wire.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	defer l.hangUp()
	if l.way != wayQUIC || signer.signed.Load() != 1 {
		t.Errorf("connected by %s with %d signatures", l.way, signer.signed.Load())
	}
}

// While a QUIC handshake waits for somebody to type a PIN, no second one over TCP
// asks again.
func TestSlowCardIsAskedOnce(t *testing.T) {
	w := newWorld(t)
	signer := &slowSigner{}
	e := w.device("alice").reachable().rests(signer, &signer.Signer)
	l, err := e.reach(t.Context(), wire.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	defer l.hangUp()
	if l.way != wayQUIC || signer.asked.Load() != 1 {
		t.Errorf("connected by %s, the card was asked %d times", l.way, signer.asked.Load())
	}
}

type slowSigner struct {
	countingSigner
	asked atomic.Int32
}

func (s *slowSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.asked.Add(1)
	<-time.After(2 * fallbackAfter)
	return s.countingSigner.Sign(rand, digest, opts)
}

// A gateway that is busy is not tried in another way; one that does not answer is.
func TestBusyIsNotClosed(t *testing.T) {
	busy := &quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}
	if !refusedAtOnce(busy) || refusedAtOnce(&quic.HandshakeTimeoutError{}) || refusedAtOnce(&quic.TransportError{ErrorCode: quic.ConnectionRefused}) {
		t.Error("a refusal is not told from silence")
	}
	var w ways
	now := time.Now()
	for _, want := range []time.Duration{quicAgain, 2 * quicAgain, 4 * quicAgain, 8 * quicAgain, 16 * quicAgain, quicSeldom, quicSeldom} {
		w.closed(now)
		if got := w.until().Sub(now); got != want {
			t.Fatalf("believed closed for %v, want %v", got, want)
		}
	}
	if first, _ := w.first(now); first != wayTCP {
		t.Error("not remembered")
	}
	// As of the wall clock: what was remembered is out of date after a computer's sleep,
	// and not for ever true when somebody has set the clock back.
	if first, _ := w.first(now.Round(0).Add(quicSeldom + time.Second)); first != wayQUIC {
		t.Error("remembered for longer")
	}
	if first, _ := w.first(now.Round(0).Add(-time.Hour)); first != wayQUIC {
		t.Error("remembered under a clock that was set back")
	}
	w.passes()
	if first, _ := w.first(now); first != wayQUIC {
		t.Error("remembered for ever")
	}
}

// deafAfterHandshake is a QUIC gateway on whose network nothing passes any more once the
// handshake has.
func (w *world) deafAfterHandshake() string {
	w.t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		w.t.Fatal(err)
	}
	deaf := &deafConn{PacketConn: conn}
	tr := &quic.Transport{Conn: deaf}
	listener, err := tr.Listen(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{wire.Protocol}, Certificates: []tls.Certificate{*w.cert}, ClientAuth: tls.RequireAnyClientCert,
	}, &quic.Config{})
	if err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := listener.Accept(context.Background()); err == nil {
			deaf.silent.Store(true)
		}
	}()
	w.t.Cleanup(func() {
		_, _, _ = listener.Close(), tr.Close(), conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

type deafConn struct {
	net.PacketConn
	silent atomic.Bool
}

func (d *deafConn) WriteTo(p []byte, to net.Addr) (int, error) {
	if d.silent.Load() {
		return len(p), nil
	}
	return d.PacketConn.WriteTo(p, to)
}

// Where UDP passes a handshake and nothing after it, TCP is tried first the next time,
// and for longer each time; one gateway that answers is what makes UDP believed again,
// and not its handshake.
func TestHandshakeAloneIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	signer := &countingSigner{}
	e := w.device("alice").reachable().rests(signer, &signer.Signer)
	greet := func(gateway string, wait time.Duration) error {
		e.ways.retry()
		e.cfg.Gateway = gateway
		line, err := e.reach(t.Context(), wire.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		if e.ways.wait != quicAgain && wait < patience {
			t.Errorf("after the handshake believed closed for %v", e.ways.wait)
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		l, err := e.meet(ctx, line, e.hello())
		if err == nil {
			l.close()
		}
		return err
	}
	e.ways.closed(time.Now())
	if err := greet(w.deafAfterHandshake(), 300*time.Millisecond); err == nil {
		t.Fatal("greeted a gateway that says nothing")
	}
	if first, _ := e.ways.first(time.Now()); first != wayTCP || e.ways.wait != 2*quicAgain {
		t.Errorf("%s is tried first, believed closed for %v", first, e.ways.wait)
	}
	if err := greet(w.address, patience); err != nil {
		t.Fatal(err)
	}
	if first, _ := e.ways.first(time.Now()); first != wayQUIC || e.ways.wait != 0 {
		t.Errorf("%s is tried first, believed closed for %v", first, e.ways.wait)
	}
}

// When a packet passes again, QUIC is tried once; that it was closed is not forgotten
// before it has worked.
func TestLookOutTriesOnce(t *testing.T) {
	w := newWorld(t)
	signer := &countingSigner{}
	e := w.device("alice").reachable().rests(signer, &signer.Signer)
	e.ways.closed(time.Now().Add(-time.Hour))
	if err := e.lookOut(t.Context(), &link{line: &line{way: wayTCP, node: node{udp: w.address}}}); !errors.Is(err, errUDPPasses) {
		t.Fatal(err)
	}
	if first, _ := e.ways.first(time.Now()); first != wayQUIC || e.ways.wait != quicAgain {
		t.Errorf("%s is tried first, believed closed for %v", first, e.ways.wait)
	}
	e.ways.closed(time.Now())
	if e.ways.wait != 2*quicAgain {
		t.Errorf("closed again, and believed for %v", e.ways.wait)
	}
}

// A further connection that is being made is given up with the first one.
func TestFurtherConnectionObeysTheFirst(t *testing.T) {
	w := newWorld(t)
	signer := &countingSigner{}
	e := w.device("alice").reachable().rests(signer, &signer.Signer)
	dial := func() *line {
		t.Helper()
		first, err := e.dialTCP(t.Context(), node{tcp: w.address}, e.tlsConfig("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		return first
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	first := dial()
	first.at = silent.Addr().String()
	ended := make(chan error, 1)
	go func() {
		_, err := first.further(t.Context())
		ended <- err
	}()
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	first.hangUp()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a further connection to nobody")
		}
	case <-time.After(handshakeTimeout / 2):
		t.Fatal("the further connection outlives the first")
	}
}

// The gateway's word decides when to come back; without it the pause is random.
func TestComesBackWhenTold(t *testing.T) {
	e := new(Engine)
	told := closeReason(&transport.CloseError{Code: wire.CloseShutdown, Reason: wire.BackIn(20 * time.Second), Remote: true})
	for range 50 {
		if d := e.untilNext(told, time.Second); d < 20*time.Second || d > 22*time.Second+time.Millisecond {
			t.Fatalf("told 20 s, comes in %v", d)
		}
		if d := e.untilNext(errors.New("lost"), time.Second); d < time.Second/2 || d > 3*time.Second/2 {
			t.Fatalf("not told, comes in %v", d)
		}
	}
	for _, reason := range []string{"", "back=", "back=-1", "back=01", "back=1e3", "back=600001", "back=99999999999"} {
		if d, ok := wire.ParseBack(reason); ok {
			t.Errorf("%q means %v", reason, d)
		}
	}
}

// middle passes UDP packets between devices and the gateway, as a router with
// address translation does.
type middle struct {
	t       testing.TB
	front   *net.UDPConn
	gateway *net.UDPAddr
	flights *flights // nil: each packet goes at once

	mu    sync.Mutex
	ports map[string]*net.UDPConn // guarded by mu; outside, by the device's address
	moves int                     // guarded by mu
}

func newMiddle(t testing.TB, gateway string, f *flights) *middle {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", gateway)
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{t: t, front: front, gateway: to, flights: f, ports: make(map[string]*net.UDPConn)}
	go m.up()
	t.Cleanup(func() {
		_ = front.Close()
		m.move()
	})
	return m
}

func (m *middle) address() string { return m.front.LocalAddr().String() }

// move forgets all mappings: from the next packet on devices have other addresses.
func (m *middle) move() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for from, port := range m.ports {
		_ = port.Close()
		delete(m.ports, from)
	}
	m.moves++
}

func (m *middle) port(from *net.UDPAddr) *net.UDPConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	port := m.ports[from.String()]
	if port == nil {
		// Another address, too, each time: 127.0.0.2, 127.0.0.3 …
		var err error
		if port, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+m.moves%200))}); err != nil {
			return nil
		}
		m.ports[from.String()] = port
		go m.down(port, from)
	}
	return port
}

func (m *middle) up() {
	buf := make([]byte, 2000)
	for {
		n, from, err := m.front.ReadFromUDP(buf)
		if err != nil {
			return
		}
		if port := m.port(from); port != nil {
			packet := bytes.Clone(buf[:n])
			m.pass(0, func() { _, _ = port.WriteToUDP(packet, m.gateway) })
		}
	}
}

func (m *middle) down(port *net.UDPConn, to *net.UDPAddr) {
	buf := make([]byte, 2000)
	for {
		n, err := port.Read(buf)
		if err != nil {
			return
		}
		packet := bytes.Clone(buf[:n])
		m.pass(1, func() { _, _ = m.front.WriteToUDP(packet, to) })
	}
}

func (m *middle) pass(way int, packet func()) {
	if m.flights == nil {
		packet()
		return
	}
	m.flights.add(way, packet)
}

// A device whose address and port change in the middle of a conversation, again and
// again, keeps its connection, and nothing is lost or comes twice.
func TestAddressChange(t *testing.T) {
	w := newWorld(t)
	m := newMiddle(t, w.address, nil)
	alice := w.device("alice").reachable()
	w.through = m.address()
	bob := w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "first")
	bob.gets("first")
	back := bob.with(t, alice)
	since := bob.State().Since
	want := []string{"first"}
	for i := range 8 {
		m.move()
		text := string(rune('a' + i))
		if i%2 == 0 { // the device speaks first after its move, or is spoken to
			bob.says(back, "from bob "+text)
		}
		alice.says(conv, text)
		want = append(want, text)
	}
	bob.gets(want...)
	if s := bob.State(); s.Since != since || s.Name != StateOnline {
		t.Errorf("bob's connection did not outlive the moves: %+v, was online since %v", s, since)
	}
	if n := count(bob.texts(), "first"); n != 1 {
		t.Errorf("a message came %d times", n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moves != 8 {
		t.Errorf("%d moves", m.moves)
	}
}

// flights lets packets through in turns: all that one side has to say, until it is
// silent for a window, then all that the other side answers. So round trips are counted by
// what needs what, whatever the time that it takes.
type flights struct {
	window time.Duration
	news   chan struct{}

	mu      sync.Mutex
	waiting [2][]func() // guarded by mu; to the gateway, and from it
	trips   int         // guarded by mu; turns from the gateway
}

func newFlights(t testing.TB, window time.Duration) *flights {
	f := &flights{window: window, news: make(chan struct{}, 1)}
	go f.run(t.Context())
	return f
}

func (f *flights) add(way int, packet func()) {
	f.mu.Lock()
	f.waiting[way] = append(f.waiting[way], packet)
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

func (f *flights) held(way int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting[way])
}

func (f *flights) run(ctx context.Context) {
	for way := 0; ; way = 1 - way {
		for seen := -1; seen != f.held(way); { // until a window has passed without a packet
			for seen = f.held(way); seen == 0; seen = f.held(way) {
				select {
				case <-f.news:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-time.After(f.window):
			case <-ctx.Done():
				return
			}
		}
		f.mu.Lock()
		packets := f.waiting[way]
		f.waiting[way] = nil
		f.trips += way
		f.mu.Unlock()
		for _, p := range packets {
			p()
		}
	}
}

func (f *flights) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trips
}

// From the first packet to the first delivery two round trips pass: TLS, then Hello
// with Resume. A machine that is too slow for a window shows more, and gets a longer one;
// a third round trip would be there each time.
func TestRoundTripsToFirstDelivery(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "first")
	bob.gets("first")
	texts := []string{"first"}
	trips := make(chan int, 1)
	for window := 50 * time.Millisecond; window < 2*time.Second; window *= 4 {
		bob.kill()
		text := fmt.Sprint("waiting ", window)
		alice.says(conv, text)
		texts = append(texts, text)
		m := newMiddle(t, w.address, newFlights(t, window))
		w.through = m.address()
		bob.crash = func(point string) error {
			if point == "deliver" {
				select {
				case trips <- m.flights.count():
				default: // of the first one
				}
			}
			return nil
		}
		bob.start()
		bob.gets(texts...)
		n := <-trips
		t.Logf("%d round trips to the first delivery, with a window of %v", n, window)
		if n <= 2 {
			return
		}
	}
	t.Error("there are more than two round trips to the first delivery")
}
