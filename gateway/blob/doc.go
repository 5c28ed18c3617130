// SPDX-License-Identifier: Apache-2.0

// Package blob keeps files on their way between devices: ciphertext that the
// gateway cannot read, named by its SHA-256, up to 10 GiB.
//
//	place, err := blob.OpenFolder(blob.FolderConfig{Dir: dir})
//	files, err := blob.Open(blob.Config{Place: place, Store: store})
//	up, err := files.Put(ctx, blob.Upload{ID: id, Group: group, Size: size, Owner: device})
//	offset := up.Offset()                 // go on from here
//	err = up.Append(data)                 // as often as needed
//	err = up.Finish()                     // ErrHash: what arrived is another file
//	up.Close()
//
//	f, err := files.Get(ctx, id, isMember)
//	err = files.Done(ctx, id, device)     // the last recipient's ends the file
//
// Bytes lie in a [Place]: a folder ([Folder]), which several gateways may share, or a
// bucket (package gateway/bucket). What is known of a file is in the store. A file is
// written by one process at a time, which holds a claim for some minutes and renews it as
// bytes arrive; when it dies, another one goes on where the last claim was renewed, with the
// hash as it stood there. A folder's file that was resumed is read once more from its
// disk before it is believed; what does not hash to its name is dropped whole.
//
// A file ends when all recipients have it or its time is over. Its record says so first;
// then its bytes are deleted, by whoever ended it, or by whoever finds them after a crash.
// Brought again it is in another life under another name, so that nobody deletes what is new.
//
// Who may put and get is the caller's question: this package knows groups only
// as a name that a file belongs to.
//
// Never build a path from what a device sends: files are named by a hash of
// group and id, in hexadecimal.
package blob
