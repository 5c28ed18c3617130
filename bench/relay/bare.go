// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"valise/bench/lean"
)

// The bare relay is what QUIC costs in Go, and nothing else: it knows no devices,
// checks no message, keeps no counters and gives no second chance. With a log
// every message is on disk before it is acknowledged or delivered, in one file for
// all, committed in groups. Frames, each on a client's one stream:
//
//	struct { uint32 length; uint8 type; opaque body[length]; } Frame;
//
// Up: hello (uint32 box; answered with done, of 0), send (uint32 box, payload), seen (uint64 number), open.
// Down: done (uint32 how many), mail (uint64 number, payload).
const (
	bareHello = 1 + iota
	bareSend
	bareSeen
	bareOpen
	bareDone
	bareMail
)

const (
	bareHead     = 5
	bareProtocol = "bare"
	bareFrame    = 64 << 10 // longer frames end the connection
)

// A bareConfig tells the process where to listen.
type bareConfig struct {
	Dir     string // of the authority's files
	Address string
	Log     string // file; empty: nothing is stored
}

type bareRelay struct {
	log *bareLog // nil: none

	mu    sync.Mutex
	boxes map[uint32]*bareBox // guarded by mu
}

// bareMain is the program's third life.
func bareMain(ctx context.Context, config string) error {
	var cfg bareConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	authority, err := lean.Load(cfg.Dir, domain)
	if err != nil {
		return err
	}
	certificate, err := authority.Server()
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", cfg.Address)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	r := &bareRelay{boxes: make(map[uint32]*bareBox)}
	if cfg.Log != "" {
		if r.log, err = openBareLog(cfg.Log); err != nil {
			return err
		}
		go r.log.run()
	}
	transport := &quic.Transport{Conn: socket}
	listener, err := transport.Listen(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{bareProtocol}, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := authority.Trust().DeviceOf(s.PeerCertificates, time.Now())
			return err
		},
	}, lean.QUIC())
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return err
		}
		go func() {
			_ = r.serve(ctx, conn)
			_ = conn.CloseWithError(0, "")
		}()
	}
}

func (r *bareRelay) box(n uint32) *bareBox {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.boxes[n]
	if !ok {
		b = new(bareBox)
		r.boxes[n] = b
	}
	return b
}

// serve reads one client's frames. What it has read at once is acknowledged at once.
func (r *bareRelay) serve(ctx context.Context, conn *quic.Conn) error {
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	in, out := bufio.NewReaderSize(stream, 64<<10), newBareOut(conn.Context(), stream)
	var own *bareBox
	var body []byte
	done := uint32(0)
	for {
		kind, err := readBare(in, &body)
		if err != nil {
			return err
		}
		switch {
		case kind == bareHello && len(body) == 4:
			own = r.box(binary.BigEndian.Uint32(body))
			out.done(0)
		case kind == bareSend && len(body) > 4:
			to := r.box(binary.BigEndian.Uint32(body))
			if r.log != nil {
				r.log.append(to, out, body[4:])
				break
			}
			to.deliver(body[4:])
			done++
		case kind == bareSeen && own != nil && len(body) == 8:
			own.seen(binary.BigEndian.Uint64(body))
		case kind == bareOpen && own != nil:
			if err := own.open(r.log, out); err != nil {
				return err
			}
		default:
			return errors.New("unknown frame")
		}
		if done > 0 && in.Buffered() < bareHead+4 {
			out.done(done)
			done = 0
		}
	}
}

// readBare reads one frame into body, which is used again.
func readBare(in *bufio.Reader, body *[]byte) (byte, error) {
	var head [bareHead]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > bareFrame {
		return 0, fmt.Errorf("a frame of %d bytes", n)
	}
	if cap(*body) < n {
		*body = make([]byte, n)
	}
	*body = (*body)[:n]
	_, err := io.ReadFull(in, *body)
	return head[4], err
}

func appendBare(b []byte, kind byte, size int) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(size)), kind)
}

// A bareOut writes a client's frames, all that wait in one call.
type bareOut struct {
	mu     sync.Mutex
	cond   *sync.Cond
	unsent []byte // guarded by mu
	ended  bool   // guarded by mu
}

func newBareOut(ctx context.Context, w io.Writer) *bareOut {
	o := new(bareOut)
	o.cond = sync.NewCond(&o.mu)
	context.AfterFunc(ctx, o.end)
	go func() {
		var chunk []byte
		for {
			o.mu.Lock()
			for len(o.unsent) == 0 && !o.ended {
				o.cond.Wait()
			}
			if o.ended {
				o.mu.Unlock()
				return
			}
			chunk, o.unsent = o.unsent, chunk[:0]
			o.mu.Unlock()
			o.cond.Broadcast()
			if _, err := w.Write(chunk); err != nil {
				o.end()
				return
			}
		}
	}()
	return o
}

func (o *bareOut) end() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	o.cond.Broadcast()
}

func (o *bareOut) done(n uint32) {
	o.mu.Lock()
	o.unsent = binary.BigEndian.AppendUint32(appendBare(o.unsent, bareDone, 4), n)
	o.mu.Unlock()
	o.cond.Broadcast()
}

func (o *bareOut) mail(number uint64, payload []byte) {
	o.mu.Lock()
	o.unsent = binary.BigEndian.AppendUint64(appendBare(o.unsent, bareMail, 8+len(payload)), number)
	o.unsent = append(o.unsent, payload...)
	o.mu.Unlock()
	o.cond.Broadcast()
}

// room waits until little is unsent; false when the client is gone.
func (o *bareOut) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.unsent) > 256<<10 && !o.ended {
		o.cond.Wait()
	}
	return !o.ended
}

// A bareBox is one mailbox: where its mail lies in the log, and who reads it.
type bareBox struct {
	mu     sync.Mutex
	reader *bareOut    // guarded by mu; nil while nobody asks for mail
	first  uint64      // guarded by mu; number of places[0]
	places []barePlace // guarded by mu; mail that is not seen yet
}

type barePlace struct {
	at   int64
	size int
}

// deliver hands a message to whoever reads; without a log it is gone otherwise.
func (b *bareBox) deliver(payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first++
	if b.reader != nil {
		b.reader.mail(b.first, payload)
	}
}

// stored notes where a message lies and delivers it.
func (b *bareBox) stored(p barePlace, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.places = append(b.places, p)
	if b.reader != nil {
		b.reader.mail(b.first+uint64(len(b.places)), payload)
	}
}

// seen forgets what the owner has.
func (b *bareBox) seen(number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := int(number - b.first); number > b.first && n <= len(b.places) {
		b.places, b.first = b.places[n:], number
	}
}

// open sends what waits in the log, and from then on what comes.
func (b *bareBox) open(log *bareLog, out *bareOut) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.first
	var payload []byte
	for log != nil && next < b.first+uint64(len(b.places)) {
		place := b.places[next-b.first]
		next++
		b.mu.Unlock()
		payload = append(payload[:0], make([]byte, place.size)...)
		_, err := log.file.ReadAt(payload, place.at)
		ok := err == nil && out.room()
		if ok {
			out.mail(next, payload)
		}
		b.mu.Lock()
		if !ok {
			return err
		}
	}
	b.reader = out
	return nil
}
