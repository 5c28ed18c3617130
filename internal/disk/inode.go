// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"maps"
	"math/rand/v2"
	"syscall"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

type page [pageSize]byte

// An inode is a file or a folder, twice: as programs see it, and as it would be
// found after a power loss. All fields are guarded by the disk's mutex.
type inode struct {
	number uint64
	mode   uint32 // with the kind

	// A file. What it holds is written, over what of saved lies below floor.
	size      int64
	written   map[int64]*page // since the last sync
	floor     int64           // the smallest size since the last sync
	saved     map[int64]*page
	savedSize int64

	// A folder.
	entries      map[string]*inode
	savedEntries map[string]*inode
}

func (i *inode) folder() bool { return i.mode&syscall.S_IFMT == syscall.S_IFDIR }

// page is what programs see of page n, or nil for a hole.
func (i *inode) page(n int64) *page {
	if p := i.written[n]; p != nil {
		return p
	}
	if n*pageSize < i.floor {
		return i.saved[n]
	}
	return nil
}

// own returns page n for writing.
func (i *inode) own(n int64) *page {
	if p := i.written[n]; p != nil {
		return p
	}
	p := new(page)
	if old := i.page(n); old != nil {
		*p = *old
	}
	i.written[n] = p
	return p
}

func (i *inode) read(dest []byte, off int64) int {
	total := 0
	for len(dest) > 0 && off < i.size {
		from := off % pageSize
		n := min(int64(len(dest)), pageSize-from, i.size-off)
		if p := i.page(off / pageSize); p != nil {
			copy(dest[:n], p[from:])
		} else {
			clear(dest[:n])
		}
		dest, off, total = dest[n:], off+n, total+int(n)
	}
	return total
}

func (i *inode) write(data []byte, off int64) {
	for len(data) > 0 {
		n := copy(i.own(off / pageSize)[off%pageSize:], data)
		data, off = data[n:], off+int64(n)
		i.size = max(i.size, off)
	}
}

// growth is how many pages a write would take from the disk: those that are
// neither on it nor promised to it.
func (i *inode) growth(size, off int64) (pages int64) {
	for n := off / pageSize; n*pageSize < off+size; n++ {
		if i.written[n] == nil && i.saved[n] == nil {
			pages++
		}
	}
	return pages
}

func (i *inode) truncate(size int64) {
	if size < i.size {
		for n := range i.written {
			if n*pageSize >= size {
				delete(i.written, n)
			}
		}
		if size%pageSize != 0 {
			clear(i.own(size / pageSize)[size%pageSize:])
		}
		i.floor = min(i.floor, size)
	}
	i.size = size
}

// sync makes what programs see what survives.
func (i *inode) sync() {
	if i.folder() {
		i.savedEntries = maps.Clone(i.entries)
		return
	}
	for n := range i.saved {
		if n*pageSize >= i.floor {
			delete(i.saved, n)
		}
	}
	maps.Copy(i.saved, i.written)
	i.written = map[int64]*page{}
	i.savedSize, i.floor = i.size, i.size
}

// revert makes what survives what programs see. With a source of chance some
// of what was not synced survives too.
func (i *inode) revert(torn *rand.Rand) (lost int64) {
	if i.folder() {
		if torn != nil && torn.IntN(2) == 0 {
			i.savedEntries = i.entries
		}
		i.entries = maps.Clone(i.savedEntries)
		return 0
	}
	lost = int64(len(i.written))
	if torn != nil {
		i.tear(torn)
	}
	i.written = map[int64]*page{}
	i.size, i.floor = i.savedSize, i.savedSize
	return lost
}

// tear keeps single sectors of what was not synced. A sector itself is written
// whole or not at all.
func (i *inode) tear(torn *rand.Rand) {
	if i.floor < i.savedSize && torn.IntN(2) == 0 { // the shortening got through
		for n := range i.saved {
			if n*pageSize >= i.floor {
				delete(i.saved, n)
			}
		}
		i.savedSize = i.floor
	}
	for n, w := range i.written {
		if torn.IntN(2) == 0 {
			continue
		}
		kept := new(page)
		if old := i.saved[n]; old != nil {
			*kept = *old
		}
		end := int64(0)
		for s := 0; s < pageSize; s += sectorSize {
			if torn.IntN(4) > 0 {
				copy(kept[s:s+sectorSize], w[s:])
				end = int64(s + sectorSize)
			}
		}
		i.saved[n] = kept
		i.savedSize = max(i.savedSize, min(n*pageSize+end, i.size))
	}
}
