// SPDX-License-Identifier: Apache-2.0

// Package syslog carries a copy of the audit stream to a collector, in the form of RFC
// 5424: over the datagram socket of this machine (RFC 5424 on /dev/log), over TCP (RFC
// 6587, octet counting) or over TLS (RFC 5425).
//
//	s, err := syslog.Open(syslog.Config{Server: "tls://log.example:6514", Roots: "root.pem", Program: "valise-gatewayd"})
//	s.Send(syslog.Message{Time: now, Event: "connection_refused", Reason: "revoked", Params: …})
//	s.Metrics(registry)
//	err = s.Close(ctx)
//
// Send never waits. Messages stand in a queue of bounded length; when that is full, new
// ones are dropped, counted, and the loss is stated twice: to Config.Lost, which the
// daemon writes into its audit file, and in the stream itself, as the event syslog_lost,
// as soon as there is room. The file stays the stream that nothing is missing from.
//
// A message that was written to a TCP connection is kept until the collector's kernel
// has acknowledged its bytes (SIOCOUTQ), and sent again over the next connection if the
// connection ends before. So a message may come twice, with the same sequenceId (RFC
// 5424, Section 7.3.1); one whose sequenceId never comes was lost at the collector.
//
// Never put into a message what must not be in the audit file: this is the same text,
// and it leaves the machine. Plain TCP and datagrams are readable on their way.
package syslog
