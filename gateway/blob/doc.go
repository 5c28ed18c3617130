// SPDX-License-Identifier: Apache-2.0

// Package blob keeps files on their way between devices: ciphertext that the
// gateway cannot read, named by its SHA-256, up to 2 GiB.
//
//	files, err := blob.Open(blob.Config{Dir: dir, Store: store})
//	up, err := files.Put(ctx, blob.Upload{ID: id, Group: group, Size: size, Owner: device})
//	offset := up.Offset()                 // go on from here
//	n, err := up.Append(data)             // as often as needed
//	err = up.Finish()                     // ErrHash: what arrived is another file
//	up.Close()
//
//	f, size, err := files.Get(ctx, id, isMember)
//
// A partial file stays when a transfer breaks off, and the next upload goes on
// at its end; bytes are hashed as they arrive and once more from disk when an
// upload is resumed. A file that does not hash to its name is dropped whole. A
// file is complete only after it and its record have been synced.
//
// Who may put and get is the caller's question: this package knows groups only
// as a name that a file belongs to.
//
// Never build a path from what a device sends: files are named by a hash of
// group and id, in hexadecimal.
package blob
