// SPDX-License-Identifier: Apache-2.0

package manifest

// Bounds on what strangers may hand to this package.
const (
	// maxManifest bounds a manifest: sixteen issuing certificates of 8 KiB in
	// base64, twice over, and its keys.
	maxManifest = 512 << 10

	// maxFounding bounds a founding record: sixty-four officers' certificates
	// and the vendors' roots of several makers.
	maxFounding = 2 << 20

	// MaxKeys bounds the keys of one kind in a manifest: the one in use, and those
	// before it whose signatures still count.
	MaxKeys = 16

	// maxOfficers bounds the officers of a founding ceremony. The largest
	// planned has a dozen.
	maxOfficers = 64

	// maxProfiles bounds the certificate profiles of a founding record.
	maxProfiles = 32

	// maxApprovals bounds how many officers a profile may ask for.
	maxApprovals = 16

	// maxOrigin bounds a checkpoint's origin: a domain of 253 characters, a
	// slash and a name.
	maxOrigin = 300

	// maxName bounds a profile's name.
	maxName = 32

	// maxYears bounds durations: no certificate of ours lives longer than a root.
	maxYears = 30
)
