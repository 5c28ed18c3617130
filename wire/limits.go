// SPDX-License-Identifier: Apache-2.0

package wire

// The bounds on everything that a peer may send. Each is checked before memory
// is set aside for what it bounds.
const (
	// MaxFrame bounds a frame's body. The largest honest one is a commit with
	// the Welcome of a group of 1,000 devices on the hybrid suite: the tree
	// alone is 4.8 MiB there.
	MaxFrame = 8 << 20

	// MaxSmall bounds a frame that says what a stream is for, and an acknowledgement:
	// the largest, a BlobPut, has 296 bytes.
	MaxSmall = 512

	// MaxMessage bounds one sealed message. Text and file references are far
	// smaller; files travel as blobs.
	MaxMessage = 256 << 10

	// MaxCommit bounds one commit: the first one after 1,000 devices were added
	// measures 1.7 MiB on the hybrid suite.
	MaxCommit = 3 << 20

	// MaxGroupInfo bounds a GroupInfo without its tree: context, extensions, a
	// signature.
	MaxGroupInfo = 64 << 10

	// MaxTree bounds an encoded ratchet tree (1,000 devices: 4.8 MiB).
	MaxTree = 6 << 20

	// MaxWelcome bounds a Welcome with its tree.
	MaxWelcome = MaxTree + 512<<10

	// MaxKeyPackage bounds one KeyPackage: a certificate chain of 16 KiB (what
	// TLS carries from a client), two hybrid public keys, two signatures.
	MaxKeyPackage = 32 << 10

	// MaxKeyPackages is how many KeyPackages one request may publish.
	MaxKeyPackages = 100

	// MaxDevices is how many devices one request may name, and how many one
	// answer lists: a person has a handful.
	MaxDevices = 64

	// MaxDirectory is how many entries one directory answer lists.
	MaxDirectory = 1000

	// MaxChain is how many certificates a directory entry's chain may hold.
	MaxChain = 4

	// MaxRecord bounds a part of the authority's record. The largest is a bulletin
	// that names tens of thousands of devices.
	MaxRecord = 6 << 20

	// MaxOrders is how many statements one answer lists, and MaxOrder bounds one of
	// them: few are ahead of the bulletin at a time. MaxOrderBytes bounds all of
	// them, so that they go into one frame with the largest bulletin.
	MaxOrders     = 1024
	MaxOrder      = 64 << 10
	MaxOrderBytes = 1 << 20

	// MaxRecordSize bounds the leaves of a tree that is asked about, far beyond
	// what an authority can issue.
	MaxRecordSize = 1 << 48

	// MaxBundle bounds a signed policy bundle, as package policy/bundle does, and
	// MaxBundlePart what one answer carries of it: some parts fit between other
	// answers without holding them up.
	MaxBundle     = 16 << 20
	MaxBundlePart = 1 << 20

	// MaxBlob bounds one file: 10 GiB, and room for the tags of chunks of 4 KiB or more.
	MaxBlob = 10<<30 + 48<<20

	// MaxSame is how many bytes of a sealed message may be left out because the one
	// before it had them too: what anybody can read of one, with a label of usual size.
	// Each end of a connection holds so many for a stream that has carried messages.
	MaxSame = 512

	// MaxPending is how many requests a device may have unanswered on its
	// control stream; the gateway stops reading beyond it.
	MaxPending = 256

	// MaxLabel bounds a label in the header: the canonical encoding of a label
	// with tens of categories takes a few hundred bytes.
	MaxLabel = 4 << 10

	// MaxExtensions is how many extensions a content may carry.
	MaxExtensions = 16

	// MaxUndelivered is how many submissions one notice of undelivered mail names;
	// more of them make more notices.
	MaxUndelivered = 1024

	// MaxAhead is how many deliveries the gateway sends ahead of a backlog before the
	// first of them has been acknowledged in its place: as many as Resume can name.
	MaxAhead = 48

	// DeliveryWindow is how many deliveries the gateway sends before the first
	// of them is acknowledged, and DeliveryWindowBytes how many bytes of them:
	// what a device must be ready to hold, and what a drain holds in memory.
	DeliveryWindow      = 256
	DeliveryWindowBytes = 4 << 20
)
