// SPDX-License-Identifier: Apache-2.0

package local

import "time"

const (
	// maxRequest bounds a request's body: the largest is a text of 128 KiB, which
	// JSON may make six times as long ("<" is six characters), with its addressees.
	maxRequest = 1 << 20

	// maxLine bounds one line of an answer: an event with a text.
	maxLine = 4 << 20

	// maxSocketPath is what a unix socket's address holds on all systems, with room
	// for the terminating zero (108 on Linux, 104 on macOS).
	maxSocketPath = 100

	// headerTimeout bounds how long a client may take to say what it wants.
	headerTimeout = 10 * time.Second
)
