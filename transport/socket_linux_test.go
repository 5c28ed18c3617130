// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// sendTogether sends data in one call, to be cut into datagrams of size bytes
// (udp(7): UDP_SEGMENT).
func sendTogether(t *testing.T, from *net.UDPConn, to *net.UDPAddr, data []byte, size uint16) {
	t.Helper()
	control := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&control[unix.CmsgLen(0)])) = size
	if _, _, err := from.WriteMsgUDP(data, control, to); err != nil {
		t.Skip("this kernel cuts nothing: ", err)
	}
}

func listen(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// read takes datagrams off a socket in batches of batch.
func read(t *testing.T, s *socket, count, batch, room int) (all [][]byte, from []net.Addr) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(time.Minute))
	for len(all) < count {
		ms := make([]ipv4.Message, batch)
		for i := range ms {
			ms[i] = ipv4.Message{Buffers: [][]byte{make([]byte, room)}, OOB: make([]byte, maxControl)}
		}
		n, err := s.ReadBatch(ms, 0)
		if err != nil || n == 0 {
			t.Fatalf("%d datagrams, %v, after %d of %d", n, err, len(all), count)
		}
		for _, m := range ms[:n] {
			all, from = append(all, m.Buffers[0][:m.N]), append(from, m.Addr)
		}
	}
	return all, from
}

func TestSocketTakesDatagramsApart(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1"} {
		if c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback}); err == nil {
			_ = c.Close()
		} else if address == "::1" {
			t.Logf("this machine has no IPv6: %v", err)
			continue
		}
		s, ok := Socket(listen(t, address), 2).(*socket)
		if !ok {
			t.Skip("this kernel puts nothing together")
		}
		a, b := listen(t, address), listen(t, address)
		to := s.LocalAddr().(*net.UDPAddr)
		data := make([]byte, 3*1200+77)
		for i := range data {
			data[i] = byte(i * 7)
		}
		sendTogether(t, a, to, data, 1200)
		for _, d := range [][]byte{{}, []byte("short"), bytes.Repeat([]byte{9}, 2000)} {
			if _, err := b.WriteTo(d, to); err != nil {
				t.Fatal(err)
			}
		}
		want := [][]byte{data[:1200], data[1200:2400], data[2400:3600], data[3600:], {}, []byte("short"), bytes.Repeat([]byte{9}, 1452)}
		got, from := read(t, s, len(want), 3, 1452)
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("%s: datagram %d has %d bytes, want %d", address, i, len(got[i]), len(want[i]))
			}
			sender := a
			if i > 3 {
				sender = b
			}
			if from[i].String() != sender.LocalAddr().String() {
				t.Errorf("%s: datagram %d is from %v, want %v", address, i, from[i], sender.LocalAddr())
			}
		}
		if s.UDPConn.Close() != nil {
			t.Fatal("close")
		}
		if n, err := s.ReadBatch(make([]ipv4.Message, 1), 0); n != 0 || err == nil {
			t.Errorf("%s: a closed socket gives %d datagrams, %v", address, n, err)
		}
	}
}

// What the kernel says about sizes is believed within the data only.
func TestSegmentSize(t *testing.T) {
	word := func(level, kind int32, body ...byte) []byte {
		b := make([]byte, unix.CmsgSpace(len(body)))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		h.Level, h.Type = level, kind
		h.SetLen(unix.CmsgLen(len(body)))
		copy(b[unix.CmsgLen(0):], body)
		return b
	}
	for _, c := range []struct {
		name    string
		control []byte
		want    int
	}{
		{"nothing", nil, 500},
		{"size", word(unix.IPPROTO_UDP, unix.UDP_GRO, 100, 0, 0, 0), 100},
		{"behind another", append(word(unix.IPPROTO_IP, unix.IP_TOS, 1), word(unix.IPPROTO_UDP, unix.UDP_GRO, 100, 0, 0, 0)...), 100},
		{"zero", word(unix.IPPROTO_UDP, unix.UDP_GRO, 0, 0, 0, 0), 500},
		{"negative", word(unix.IPPROTO_UDP, unix.UDP_GRO, 255, 255, 255, 255), 500},
		{"short", word(unix.IPPROTO_UDP, unix.UDP_GRO, 100, 0), 500},
		{"another's", word(unix.IPPROTO_IP, unix.UDP_GRO, 100, 0, 0, 0), 500},
		{"cut off", word(unix.IPPROTO_UDP, unix.UDP_GRO, 100, 0, 0, 0)[:10], 500},
	} {
		if got := segmentSize(c.control, 500); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
