// SPDX-License-Identifier: Apache-2.0

// Package journal keeps batches of bytes in files, in order, each on disk when
// Append returns. It stands in front of a database that takes the batches over
// later: what was taken over is released, and its files are used again.
//
//	j, err := journal.Open(journal.Config{Dir: dir, ID: id})
//	err = j.Replay(taken, func(seq uint64, at journal.Place, body []byte) error { … })
//	buf := append(make([]byte, journal.Head), body...)
//	seq, at, err := j.Append(buf)      // synced
//	err = j.ReadAt(part, at.Plus(100)) // any part of any batch that is not released
//	err = j.Release(seq)               // the database has all up to seq
//
// Files have their whole length from the beginning, and are filled with zeros or
// have been used before: bringing a batch to the disk then changes nothing but
// its own bytes, which takes about half the time of a file that grows. A batch
// begins on a block of its own, so that a write that loses its power half-way
// cannot touch a batch that was acknowledged before.
//
// A batch whose writing was cut short by a crash was never acknowledged, and is
// left out. A batch that is damaged with others behind it was acknowledged:
// then Open refuses, because what follows may depend on what is lost. What is
// whole is told by a checksum that begins with random bytes of the file: a
// sender who puts something like a batch into his payload does not know them.
//
// One process owns the folder; Append and Release have one caller each at a
// time, ReadAt any number. A program that copies the folder while it is in use
// takes [Hold] first, and nothing is released until it lets go.
package journal
