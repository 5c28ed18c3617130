// SPDX-License-Identifier: Apache-2.0

// Command soak runs a whole Valise for a while, breaks one part of it after the other
// and several at a time, and has another program judge what the people saw.
//
//	soak [-for 20m] [-seed N] [-bin DIR] [-store journal|postgres|both|cluster|async] [-nodes N]
//	     [-disk honest|torn|lying] [-next DIR] [-only KIND] [-failovers N] [-keep] [-records DIR]
//
// Four officials with cards write to each other in three conversations, all the time.
// Two of them keep bringing a fourth person into one conversation and putting her out again.
// Meanwhile processes are killed with -9 (gateway, authority, agents, receiving
// commands), the gateway's disk loses its power or is full, its process is frozen and its
// clock is set, its HSM and pcscd are restarted, and each device's network loses, delays, duplicates and
// reorders packets, or is cut, or lets TCP through and no UDP. Everything is drawn from the seed, which is printed.
//
// The gateway keeps its mail in its own journal, or in a PostgreSQL server that the soak
// starts, kills and cuts off; -store both is one run with each, half of the time each,
// whose records are judged together. With PostgreSQL the gateway may have several nodes. -store
// cluster is three servers that fail over; async, the control, the same without synchronous
// replication, which must lose.
//
// The last act is the same each time: all but one device are cut off, that one goes on
// writing until the power goes, and then nobody writes any more, so that nothing but the
// disk of the gateway, or of its database, can still bring those messages.
//
// Clients and driver write down what happened: see soak/check-soak, which
// reads it, shares no code with Valise and says
//
//	soak: ok: A acknowledged, 0 lost, 0 duplicated, 0 out of order, 0 undecryptable, F faults of K kinds
//
// or "soak: failed: …" with the first evidence, status 1. With -disk lying the disk
// answers the syncs of the last act and keeps nothing: then the judge must find a loss.
//
// Everything runs in network, mount and process namespaces of its own and leaves
// nothing behind. It takes root's rights, or a system that lets users have namespaces.
package main
