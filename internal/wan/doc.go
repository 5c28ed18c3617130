// SPDX-License-Identifier: Apache-2.0

// Package wan is a bad network in one process: a relay for UDP that loses, delays,
// duplicates and reorders packets, or cuts the way off, and counts what it did.
//
//	inside, err := net.ListenUDP("udp", …) // where clients send; in a network of their own
//	r, err := wan.New(wan.Config{Inside: inside, To: gateway, Seed: 1})
//	r.Set(wan.Weather{Loss: 0.1, Delay: 50 * time.Millisecond})
//	defer r.Close()
//
// Put the socket into a network namespace that has no other way out: then nothing gets
// past the relay, and what it counted is what the clients met. Each sender's address
// is given a socket of its own on the other side, as a router with address
// translation does.
//
// A Line does the same for connections: they pass, or freeze, or are broken off.
//
//	l, err := wan.NewLine(wan.LineConfig{Inside: listener, Dial: toTheDatabase})
//	l.Set(wan.Frozen)
//
// For tests only: a relay keeps whatever packet it is sent, and forgets no sender.
package wan
