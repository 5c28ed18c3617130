// SPDX-License-Identifier: Apache-2.0

package freeport

import (
	"net"
	"testing"
)

// Each number is given once, is below those of connections, and can be listened at for UDP
// and TCP; what somebody listens at, for either, is not free.
func TestTake(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port, err := Take()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < first || port > last || !free(port) {
			t.Errorf("port %d", port)
		}
		seen[port] = true
	}
	port, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	at := net.IPv4(127, 0, 0, 1)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: at, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	if free(port) {
		t.Error("free, while somebody listens for UDP")
	}
	_ = udp.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: at, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if free(port) {
		t.Error("free, while somebody listens for TCP")
	}
}
