// SPDX-License-Identifier: Apache-2.0

// Package freeport finds port numbers for daemons that are started, killed and started
// again at the same address, as tests and the demo do.
//
//	port, err := freeport.Take() // of 127.0.0.1, for UDP and TCP
//
// A number that the system hands out by itself would not do: while its daemon is away,
// any connection of any process may be given it. These come from below the range that
// Linux gives to connections. Nothing is reserved: another process may take the same one by chance.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
)

// The numbers from first to last: behind those of well-known services, before those of connections
// (ip_local_port_range of Linux begins at 32768).
const (
	first = 20000
	last  = 32000
	tries = 200
)

var (
	mu    sync.Mutex
	taken = map[int]bool{} // guarded by mu
)

// Take returns a port number that nobody on 127.0.0.1 listens at, neither for UDP nor for
// TCP, and that this process has not been given before.
func Take() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range tries {
		port := first + rand.IntN(last-first)
		if !taken[port] && free(port) {
			taken[port] = true
			return port, nil
		}
	}
	return 0, errors.New("no free port between 20000 and 32000 on 127.0.0.1: end what listens there")
}

func free(port int) bool {
	ip := net.IPv4(127, 0, 0, 1)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: port})
	if err != nil {
		return false
	}
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip, Port: port})
	if err != nil {
		return false
	}
	_ = tcp.Close()
	return true
}
