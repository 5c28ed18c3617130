// SPDX-License-Identifier: Apache-2.0

// Package journal keeps batches of bytes in files, in order, each on disk when
// Append returns. It stands in front of a database that takes the batches over
// later: what was taken over is released, and its files are used again.
//
//	j, err := journal.Open(journal.Config{Dir: dir})
//	err = j.Replay(taken, func(seq uint64, at journal.Place, body []byte) error { … })
//	seq, at, err := j.Append(body)     // synced
//	err = j.ReadAt(at.Plus(100), part) // any part of any batch that is not released
//	err = j.Release(seq)               // the database has all up to seq
//
// A batch whose writing was cut short by a crash was never acknowledged, and is
// left out. A batch that is damaged with others behind it was acknowledged:
// then Open refuses, because what follows may depend on what is lost.
//
// One process owns the folder; Append and Release have one caller each at a
// time, ReadAt any number.
package journal
