// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"valise/bench/lean"
	"valise/transport"
	"valise/wire"
)

// A load says which devices a process is.
type load struct {
	Dir, Address   string
	Index, Devices int
}

// An answer says how a task went.
type answer struct {
	Count    int     // devices that are connected
	Attempts int     // that it took
	Most     int     // attempts of one device
	Seconds  float64 // until the last one was welcomed
	Half     float64 // until half were
	Error    string
}

// The pauses of the real client (package client, limits.go).
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 30 * time.Second
)

// A device is one key, one certificate, and one connection at a time.
type device struct {
	config      *tls.Config
	incarnation [16]byte
	known       bool
	conn        transport.Conn
	streams     [2]transport.Stream
	attempts    int
	took        time.Duration
}

type crowd struct {
	load
	to      net.Addr
	socket  *quic.Transport
	devices []*device
}

func loadMain(text string) error {
	c := new(crowd)
	if err := json.Unmarshal([]byte(text), &c.load); err != nil {
		return err
	}
	var err error
	if c.to, err = net.ResolveUDPAddr("udp", c.Address); err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	c.socket = &quic.Transport{Conn: conn, ConnectionIDLength: 8}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var do string
		switch err := in.Decode(&do); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		var a answer
		switch do {
		case "make":
			err = c.make()
		case "lost":
			for _, d := range c.devices {
				_ = d.conn.CloseWithError(wire.CloseNormal, "")
			}
			a, err = c.connect()
		default:
			a, err = c.connect()
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (c *crowd) make() error {
	authority, err := lean.Load(c.Dir, domain)
	if err != nil {
		return err
	}
	for i := range c.Devices {
		d, err := authority.NewDevice(fmt.Sprintf("d%d-%d", c.Index, i))
		if err != nil {
			return err
		}
		own := &device{config: d.TLS(wire.Protocol)}
		rand.Read(own.incarnation[:])
		c.devices = append(c.devices, own)
	}
	return nil
}

// connect brings all devices in and waits until the last one is.
func (c *crowd) connect() (a answer, err error) {
	began := time.Now()
	var work sync.WaitGroup
	for _, d := range c.devices {
		work.Go(func() {
			c.arrive(d)
			d.took = time.Since(began)
		})
	}
	work.Wait()
	slices.SortFunc(c.devices, func(x, y *device) int { return int(x.took - y.took) })
	for _, d := range c.devices {
		a.Attempts += d.attempts
		a.Most = max(a.Most, d.attempts)
		if d.conn.Context().Err() == nil {
			a.Count++
		}
	}
	if n := len(c.devices); n > 0 {
		a.Seconds, a.Half = c.devices[n-1].took.Seconds(), c.devices[n/2].took.Seconds()
	}
	return a, nil
}

// arrive tries until it is welcomed, with the pauses of the real client.
func (c *crowd) arrive(d *device) {
	pause := firstPause
	time.Sleep(pause/2 + mrand.N(pause))
	for d.attempts = 1; ; d.attempts++ {
		err := c.attempt(d)
		if err == nil {
			return
		}
		wait := pause/2 + mrand.N(pause)
		if end := transport.ClosedBy(err); end != nil {
			if back, ok := wire.ParseBack(end.Reason); ok {
				wait = back
			}
		}
		time.Sleep(wait)
		pause = min(2*pause, lastPause)
	}
}

func (c *crowd) attempt(d *device) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := c.socket.Dial(ctx, c.to, d.config, &quic.Config{
		HandshakeIdleTimeout: 30 * time.Second, MaxIdleTimeout: 90 * time.Second, KeepAlivePeriod: 20 * time.Second,
	})
	if err != nil {
		return err
	}
	d.conn = transport.QUIC(conn)
	if err := d.greet(ctx); err != nil {
		_ = d.conn.CloseWithError(wire.CloseNormal, "")
		return err
	}
	d.known = true
	return nil
}

// greet says Hello and Resume, and waits for Welcome and for the word that all mail
// was delivered.
func (d *device) greet(ctx context.Context) error {
	for i, first := range []wire.Frame{
		&wire.Hello{Version: wire.Version, Incarnation: d.incarnation, Begin: !d.known, Agent: "bench"}, &wire.Resume{},
	} {
		s, err := d.conn.OpenStream(ctx)
		if err != nil {
			return err
		}
		frame, err := wire.Marshal(first)
		if err != nil {
			return err
		}
		if _, err := s.Write(append([]byte{byte(i) + byte(wire.StreamControl)}, frame...)); err != nil {
			return err
		}
		late, _ := ctx.Deadline()
		_ = s.SetReadDeadline(late)
		d.streams[i] = s
	}
	welcome, err := wire.Read(d.streams[0])
	if err != nil {
		return err
	}
	if _, ok := welcome.(*wire.Welcome); !ok {
		return fmt.Errorf("%T instead of a welcome", welcome)
	}
	_, err = wire.Read(d.streams[1])
	return err
}
