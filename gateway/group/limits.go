// SPDX-License-Identifier: Apache-2.0

package group

const (
	// MaxMembers bounds a group: the largest tree that fits a frame on the
	// hybrid suite has some 1,200 leaves.
	MaxMembers = 1000

	// maxLoaded bounds the groups in memory; one of ten devices takes about
	// 50 KiB.
	maxLoaded = 2000
)
