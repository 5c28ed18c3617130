// SPDX-License-Identifier: Apache-2.0

package syslog

import "time"

const (
	// maxMessage bounds a message. RFC 5425, Section 4.3.1, asks collectors to take 8 KiB.
	maxMessage = 8 << 10

	// maxValue bounds one value; the longest honest one is a chain of names.
	maxValue = 1 << 10

	// maxParams bounds the values of one message; the richest event has some dozen.
	maxParams = 48

	// maxQueue and maxQueueBytes bound what waits for the collector: minutes of a busy
	// gateway, whose refusals are limited to 50 a second.
	maxQueue      = 16384
	maxQueueBytes = 8 << 20

	// maxFlight bounds the bytes that the collector's kernel has not acknowledged.
	maxFlight = 1 << 20

	// writeLimit is how long one write may take before the connection counts as dead.
	writeLimit = 10 * time.Second

	// dialLimit is how long a connection may take to stand.
	dialLimit = 10 * time.Second

	// firstPause and lastPause are between two attempts to connect.
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second

	// ackPause is how often the kernel is asked what has arrived, while something has not.
	ackPause = 20 * time.Millisecond
)
