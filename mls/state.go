// SPDX-License-Identifier: Apache-2.0

package mls

// A Record is one piece of a group's state. Values of a Group hold secrets.
type Record struct {
	Key   string // at most 32 characters of a-z, 0-9 and "/"
	Value []byte // nil means: delete
}

// A Delta is a list of records to write or delete, in one transaction.
type Delta []Record

// Marshal encodes a Delta, for a caller that keeps one as a whole (a pending
// commit's, for example).
func (d Delta) Marshal() []byte { return nil }

// ParseDelta decodes what Marshal wrote.
func ParseDelta(data []byte) (Delta, error) { return nil, errUnbuilt }

// Merge returns the full state that results when d is written over base.
func (d Delta) Merge(base Delta) Delta { return nil }
