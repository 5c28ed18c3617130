// SPDX-License-Identifier: Apache-2.0

// Package files measures files on their way, and messages beside them, in one process: a
// gateway with its store on disk, and devices with vaults of their own, on loopback:
//
//	make bench-files            # a file of 1 GiB
//	make bench-files FILES=10   # of 10 GiB; needs some 21 GiB of disk
//
// BenchmarkFile sends a file from one device to another, measuring it first, and compares
// the bytes a second with those of copying it from disk to disk with two syncs, which is what
// gateway and recipient do at least, and of carrying it over a bare QUIC connection twice. The
// memory is that of the whole process, gateway and both devices: its largest resident set while
// the file was on its way, above what it had before.
//
// BenchmarkMessages sends messages over the same connections as four files each way, and without
// them, in turns: over loopback, and over a line of 10 Mbit/s with 20 ms and a queue of
// 256 KiB in which, unless files give way, everything waits for 0.2 s.
//
// Keys are in software. Never compare the rates of two runs on a machine that does other work.
package files
