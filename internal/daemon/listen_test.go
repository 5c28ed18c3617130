// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := Limit(inner, 1)
	defer ln.Close()
	accepted := make(chan net.Conn)
	failed := make(chan error, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				failed <- err
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("a second connection was accepted")
	default:
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_ = first.Close() // twice must not free two places
	second := <-accepted
	if err := ln.Close(); err != nil { // the loop waits for a place
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	_ = second.Close()
}

// One address gets its share and no more; closing one connection frees its place.
func TestLimitEach(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := LimitEach(inner, 2)
	defer ln.Close()
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	// from dials with a source address of the loopback network.
	from := func(ip string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	from("127.0.0.2")
	from("127.0.0.2")
	first := <-accepted
	<-accepted
	closed := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		_, err := c.Read(make([]byte, 1))
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	if !closed(from("127.0.0.2")) {
		t.Fatal("a third connection of one address is open")
	}
	from("127.0.0.3") // control: another address has a share of its own
	if c := <-accepted; c.RemoteAddr().(*net.TCPAddr).IP.String() != "127.0.0.3" {
		t.Errorf("accepted %v", c.RemoteAddr())
	}
	first.Close()
	_ = first.Close() // twice must not free two places
	from("127.0.0.2")
	<-accepted
	if !closed(from("127.0.0.2")) {
		t.Fatal("closing one connection twice freed two places")
	}
	ln.Close()
	if _, open := <-accepted; open {
		t.Error("a connection was accepted that should not be")
	}
}

// The two wildcard addresses of one port can be listened at together, as the example
// configuration has them.
func TestNetworkOfBothFamilies(t *testing.T) {
	first, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(first.LocalAddr().String())
	first.Close()
	all := []string{"0.0.0.0:" + port, "[::]:" + port}
	for _, address := range all {
		socket, err := net.ListenPacket(Network("udp", address, all), address)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		defer socket.Close()
	}
	for address, want := range map[string]string{"[::]:1": "udp", "127.0.0.1:1": "udp", "[::1]:1": "udp", ":1": "udp", "malformed": "udp", "0.0.0.0:1": "udp4"} {
		if got := Network("udp", address, []string{address}); got != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}
