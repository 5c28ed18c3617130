// SPDX-License-Identifier: Apache-2.0

// Package file seals a file in chunks for its way through the gateway, and opens
// it at the other end.
//
//	plan, err := file.Measure(ctx, f, size, file.Named(path), nil) // first pass: key, hashes, sizes
//	err = plan.Write(ctx, f, stream, offset, progress)              // second pass: the bytes, from any offset
//	path, err := file.Fetch(ctx, ref, dir, open, progress)          // at the recipient
//
// # Format (spec/message.md, Section 5)
//
// The plaintext is cut into chunks of chunk_size bytes; the last one is shorter
// or as long, and empty only if the file is. Chunk i is AES-256-GCM under the
// file's own key, with this nonce (the STREAM construction of Hoang, Reyhanitabar,
// Rogaway and Vizár, 2015):
//
//	struct { opaque zero[7]; uint32 i; uint8 last; } nonce;
//
// and without additional data. The flag on the last chunk makes a cut file fail,
// the index a reordered or repeated one. Each key seals one file, once.
//
// That "once" is why a plan keeps a digest of each sealed chunk: should the source
// change between the passes, or between two attempts to upload, the chunk is not
// sent ([ErrSourceChanged]). Two texts under one nonce would give both away.
//
// Memory is bounded by a few chunks whatever a file's size. A recipient's file
// gets its name only after its hash was compared, and never replaces another.
package file
