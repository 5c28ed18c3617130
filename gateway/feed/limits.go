// SPDX-License-Identifier: Apache-2.0

package feed

import "time"

const (
	// batch is how many leaves are put on disk with one sync. A gateway that
	// catches up receives them faster than a disk syncs.
	batch = 256

	// batchBytes bounds the payloads of one batch.
	batchBytes = 16 << 20

	// silence is after how long without an event a stream counts as dead; the
	// authority says something every ten seconds.
	silence = 35 * time.Second

	// firstPause and lastPause bound the wait before the next attempt. Each is
	// drawn at random around its middle, so that gateways do not return as one.
	firstPause = 250 * time.Millisecond
	lastPause  = 30 * time.Second

	// hurryPause is between the news that another gateway knows more and the attempt that
	// follows on it: what several of them tell costs one.
	hurryPause = 100 * time.Millisecond

	// restoreLimit is how long giving back may take.
	restoreLimit = 10 * time.Minute

	// spoolEvery is how often the spool is looked at. What lies in it is meant to
	// be obeyed at once.
	spoolEvery = 200 * time.Millisecond

	// maxRecordFile bounds a file of the record: as much as an authority takes back at
	// once.
	maxRecordFile = 1 << 30

	// maxStatements bounds the statements that came by hand.
	maxStatements = 4096

	// maxReply bounds what is read of an authority's refusal.
	maxReply = 4 << 10

	// maxManifests is how many manifests are tried for what was verified when it came.
	maxManifests = 16

	// maxBundleStatements is what a signed policy bundle has room for: two are asked for.
	maxBundleStatements = 8

	// keepBulletins is how many superseded bulletins are kept.
	keepBulletins = 16
)
