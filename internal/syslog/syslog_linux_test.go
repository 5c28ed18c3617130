// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"valise/internal/testenv"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

func event(i int) Message {
	return Message{Time: time.Now(), Severity: Notice, Event: "request_refused", Reason: "rate", Params: []Param{{"n", strconv.Itoa(i)}, {"device", `q"]\`}}}
}

func open(t *testing.T, cfg Config) *Sender {
	t.Helper()
	cfg.Program = "valise-gatewayd"
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = s.Close(ctx)
	})
	return s
}

func closed(t *testing.T, s *Sender) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.Close(ctx)
}

// until asks again and again.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// rsyslog, with its RFC 5424 parser alone, takes every message over each transport and
// reads in it what was meant, also when it is restarted in between.
func TestRealCollector(t *testing.T) {
	c := testenv.Rsyslog(t)
	const n = 50
	want := 0
	check := func(transport string) {
		t.Helper()
		seen := make(map[string]bool)
		until(t, transport, func() bool { return len(c.Messages(t)) >= want })
		for _, m := range c.Messages(t)[want-n:] {
			p, err := parse(fmt.Sprintf("<109>1 2026-01-02T03:04:05.6Z h p 1 i %s x", m.Structured))
			if err != nil || m.Facility != "13" || m.Severity != "notice" || m.Program != "valise-gatewayd" || m.ID != "request_refused" ||
				p.params["valise@32473"]["device"] != `q"]\` || p.params["valise@32473"]["reason"] != "rate" || strings.TrimSpace(m.Message) != "request_refused: rate" {
				t.Fatalf("%s: %v: %+v", transport, err, m)
			}
			seen[p.params["valise@32473"]["n"]] = true
		}
		if len(seen) != n {
			t.Errorf("%s: %d different messages of %d", transport, len(seen), n)
		}
	}
	for name, cfg := range map[string]Config{"unix": {Server: c.Unix}, "tcp": {Server: c.TCP}, "tls": {Server: c.TLS, Roots: c.Roots}} {
		s := open(t, cfg)
		for i := range n / 2 {
			s.Send(event(i))
		}
		until(t, "first half over "+name, func() bool { return len(c.Messages(t)) >= want+n/2 })
		c.Stop(t)
		for i := n / 2; i < n; i++ {
			s.Send(event(i)) // while nobody listens
		}
		c.Start(t)
		want += n
		check(name)
		if err := closed(t, s); err != nil || s.lost.Load() != 0 {
			t.Errorf("%s: %v, %d lost", name, err, s.lost.Load())
		}
	}
}

// A collector that shows a certificate of somebody else's gets nothing.
func TestTLSCollectorIsVerified(t *testing.T) {
	c := testenv.Rsyslog(t)
	good := open(t, Config{Server: c.TLS, Roots: c.Roots})
	good.Send(event(1))
	if err := closed(t, good); err != nil {
		t.Fatal(err) // the control
	}
	wrong := Config{Server: strings.Replace(c.TLS, "127.0.0.1", "localhost", 1), Roots: c.Roots, Program: "p"}
	if err := wrong.Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another name: %v", err)
	}
	unknown := Config{Server: c.TLS, Program: "p"} // the system's roots do not know it
	if err := unknown.Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another root: %v", err)
	}
}

// losses gathers what the daemon would write into its file.
type losses struct {
	mu    sync.Mutex
	calls []string // guarded by mu
	total uint64   // guarded by mu; of those that ended
}

func (l *losses) lost(n uint64, ended bool, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, fmt.Sprintf("%d %v", n, ended))
	if ended {
		l.total += n
	}
}

func (l *losses) sum() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// A queue that is full loses messages without anybody waiting, and says how many: to the
// daemon, and in the stream when it goes on.
func TestLossIsCountedAndSaid(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "log")
	var told losses
	s := open(t, Config{Server: "unix://" + path, Lost: told.lost, queue: 10})
	const n = 1000
	began := time.Now()
	for i := range n {
		s.Send(event(i))
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("whoever sends waited %v", took)
	}
	if got := s.lost.Load(); got < n-12 || got >= n {
		t.Fatalf("%d lost of %d with a queue of 10", got, n)
	}
	told.mu.Lock()
	if len(told.calls) != 1 || told.calls[0] != "1 false" {
		t.Errorf("told %v", told.calls)
	}
	told.mu.Unlock()

	socket, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	got, stated := 0, uint64(0)
	buf := make([]byte, maxMessage)
	for stated == 0 {
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		size, _, err := socket.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(string(buf[:size]))
		if err != nil {
			t.Fatal(err)
		}
		if p.id == "syslog_lost" {
			stated, _ = strconv.ParseUint(p.params["valise@32473"]["lost"], 10, 64)
		} else {
			got++
		}
	}
	for uint64(got)+stated < n {
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		if _, _, err := socket.ReadFrom(buf); err != nil {
			t.Fatalf("%d arrived, %d stated as lost, of %d: %v", got, stated, n, err)
		}
		got++
	}
	if stated != s.lost.Load() || told.sum() != stated {
		t.Errorf("%d lost, the stream says %d, the daemon was told %d", s.lost.Load(), stated, told.sum())
	}
}

// frames reads octet-counted messages.
func frames(r *bufio.Reader) (string, error) {
	size, err := r.ReadString(' ')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSpace(size))
	if err != nil || n < 1 || n > maxMessage {
		return "", fmt.Errorf("frame of %q", size)
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	return string(text), err
}

// What a collector's kernel had not acknowledged when the connection broke is sent again:
// here that of one which accepts, and takes no more than its buffer holds.
func TestBrokenConnectionLosesNothing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const n = 4000
	s := open(t, Config{Server: "tcp://" + ln.Addr().String()})
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	first := conn.(*net.TCPConn)
	if err := first.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		s.Send(event(i))
	}
	// The window closes, and nothing more can arrive; what has is looked at without
	// being taken out, which would open it again.
	last, same := -1, 0
	until(t, "the window is closed", func() bool {
		now := len(peeked(t, first))
		if same++; now != last {
			last, same = now, 0
		}
		return last > 0 && same > 40 && s.sent.Load() > n/4
	})
	seen := make(map[string]int)
	for r := bufio.NewReader(bytes.NewReader(peeked(t, first))); ; {
		text, err := frames(r)
		if err != nil {
			break
		}
		count(t, seen, text)
	}
	arrived := len(seen)
	_ = first.SetLinger(0)
	first.Close()
	second, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for r := bufio.NewReader(second); len(seen) < n; {
		_ = second.SetReadDeadline(time.Now().Add(patience))
		text, err := frames(r)
		if err != nil {
			t.Fatalf("%d of %d: %v", len(seen), n, err)
		}
		count(t, seen, text)
	}
	if arrived == 0 || arrived > n/2 || s.lost.Load() != 0 {
		t.Errorf("%d arrived over the first connection, %d lost", arrived, s.lost.Load())
	}
}

// peeked is what has arrived at a connection and was not read.
func peeked(t *testing.T, conn *net.TCPConn) []byte {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8<<20)
	n := 0
	if err := raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT) }); err != nil {
		t.Fatal(err)
	}
	return buf[:max(n, 0)]
}

func count(t *testing.T, seen map[string]int, text string) {
	t.Helper()
	p, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	seen[p.params["meta"]["sequenceId"]]++
}

// Who has nothing to say does not wait for a collector that is away.
func TestCloseWithoutCollector(t *testing.T) {
	s := open(t, Config{Server: "unix:///nonexistent"})
	until(t, "the first attempt", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.why != nil })
	if err := closed(t, s); err != nil {
		t.Error(err)
	}
	s = open(t, Config{Server: "unix:///nonexistent"})
	s.Send(event(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); err == nil || s.lost.Load() != 1 {
		t.Errorf("%v, %d lost", err, s.lost.Load())
	}
}

func TestConfigRefusals(t *testing.T) {
	for server, want := range map[string]string{
		"unix:///dev/log": "", "tcp://log.example:514": "", "tls://[2001:db8::1]:6514": "",
		"": "want", "log.example:514": "want", "udp://log.example:514": "want", "unix://dev/log": "want", "tcp://log.example": "want",
		"tcp://log.example:0": "want", "tcp://user@log.example:1": "want", "tls://log.example:6514/x": "want",
	} {
		err := (&Config{Server: server}).Check()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", server, err)
		}
	}
	for name, cfg := range map[string]Config{
		"no file": {Server: "tls://h:1", Roots: "/nonexistent"}, "roots without TLS": {Server: "tcp://h:1", Roots: "x"},
	} {
		if err := cfg.Check(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
