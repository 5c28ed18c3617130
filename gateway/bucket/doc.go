// SPDX-License-Identifier: Apache-2.0

// Package bucket keeps the bytes of files on their way in a bucket of an S3-compatible
// object store, where any gateway of a domain finds them. It is a blob.Place:
//
//	place, err := bucket.Open(ctx, bucket.Config{Endpoint: "https://s3.example:9000", Bucket: "valise", Access: …, Secret: …})
//	files, err := blob.Open(blob.Config{Place: place, Store: store, Shared: true})
//
// What lies there is ciphertext under names that say nothing; the store of objects sees sizes
// and times. A file of one piece (blob.Piece) is one request, a larger one a multipart upload:
// pieces are put as they are full, each with its SHA-256, which the server compares. What
// it takes to go on after a crash, at any gateway, is the upload's name, how many pieces it
// has, and a hash over their tags: a piece that was put by anybody else since is noticed, and
// the upload is begun anew.
//
// Never give a gateway credentials that reach more than this bucket, and never let the store
// delete by a rule of its own what is younger than the files' expiry.
package bucket
