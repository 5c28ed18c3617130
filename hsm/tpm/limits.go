// SPDX-License-Identifier: Apache-2.0

package tpm

const (
	// maxResponse is the largest response of any TPM (what Linux passes on).
	maxResponse = 4096

	// minPIN and maxPIN bound a PIN: the TPM's limit on guessing makes four
	// characters enough, and an authorization value has at most as many bytes as
	// the digest of the key's name.
	minPIN, maxPIN = 4, 32

	// maxCertificate bounds an endorsement key's certificate in the TPM's storage;
	// real ones have 1 to 2 KiB.
	maxCertificate = 8 << 10

	// nvChunk is how much of it is read at a time; every TPM can do as much.
	nvChunk = 512
)
