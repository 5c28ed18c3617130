// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A bareLog is one file to which all messages are appended. What has arrived
// during a sync is written and synced next: group commit without a timer.
type bareLog struct {
	file *os.File
	size int64

	mu      sync.Mutex
	cond    *sync.Cond
	records []byte      // guarded by mu
	waiting []bareEntry // guarded by mu
}

type bareEntry struct {
	to   *bareBox
	from *bareOut
	at   int // of the payload in records
	size int
}

// A record is
//
//	struct { uint32 length; opaque payload[length]; } Record;
const bareRecordHead = 4

func openBareLog(path string) (*bareLog, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	l := &bareLog{file: file}
	l.cond = sync.NewCond(&l.mu)
	return l, err
}

func (l *bareLog) append(to *bareBox, from *bareOut, payload []byte) {
	l.mu.Lock()
	l.records = binary.BigEndian.AppendUint32(l.records, uint32(len(payload)))
	l.waiting = append(l.waiting, bareEntry{to, from, len(l.records), len(payload)})
	l.records = append(l.records, payload...)
	l.mu.Unlock()
	l.cond.Signal()
}

func (l *bareLog) run() {
	var records []byte
	var entries []bareEntry
	for {
		l.mu.Lock()
		for len(l.waiting) == 0 {
			l.cond.Wait()
		}
		records, l.records = l.records, records[:0]
		entries, l.waiting = l.waiting, entries[:0]
		l.mu.Unlock()
		if _, err := l.file.WriteAt(records, l.size); err != nil {
			panic(err) // a yardstick that cannot write measures nothing
		}
		if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
			panic(err)
		}
		done := make(map[*bareOut]uint32)
		for _, e := range entries {
			e.to.stored(barePlace{l.size + int64(e.at), e.size}, records[e.at:e.at+e.size])
			done[e.from]++
		}
		for out, n := range done {
			out.done(n)
		}
		l.size += int64(len(records))
	}
}
