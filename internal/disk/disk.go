// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"math/rand/v2"
	"sync"
	"syscall"
)

// A Config says what a disk is like.
type Config struct {
	Seed uint64 // of what a torn disk keeps
	Torn bool   // some of what was not synced survives a power loss, in pieces

	// UID and GID own every file; if they are not 0, every user may use the mounts.
	UID, GID uint32
}

// Stats count what has happened to a disk.
type Stats struct {
	Writes, Syncs int64
	Cuts          int64 // power losses
	Lost          int64 // pages that were written, not synced, and lost by a power loss
	Refused       int64 // writes for which there was no room
	Lied          int64 // syncs that were answered and not done
}

// A Disk holds files through mounts and power losses.
type Disk struct {
	mu    sync.Mutex // guards everything below, inodes included
	root  *inode
	last  uint64 // number of the newest inode
	rng   *rand.Rand
	torn  bool
	owner [2]uint32 // never changes
	dead  bool
	lying bool
	room  int64 // pages that may still be taken; negative: any number
	stats Stats
}

// New makes an empty disk.
func New(cfg Config) *Disk {
	d := &Disk{rng: rand.New(rand.NewPCG(cfg.Seed, 0x6469736b)), torn: cfg.Torn, owner: [2]uint32{cfg.UID, cfg.GID}, room: -1}
	d.root = d.newInode(syscall.S_IFDIR | 0o700)
	return d
}

func (d *Disk) newInode(mode uint32) *inode {
	d.last++
	i := &inode{number: d.last, mode: mode}
	if i.folder() {
		i.entries, i.savedEntries = map[string]*inode{}, map[string]*inode{}
	} else {
		i.written, i.saved = map[int64]*page{}, map[int64]*page{}
	}
	return i
}

// Cut takes the power away: whatever a program asks of a mount fails from now on, and
// nothing that has not been synced will be there again.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	d.stats.Cuts++
}

// Restore brings the power back, with what survived. The mount from before must
// have gone.
func (d *Disk) Restore() {
	d.mu.Lock()
	defer d.mu.Unlock()
	var torn *rand.Rand
	if d.torn {
		torn = d.rng
	}
	seen := map[*inode]bool{}
	var walk func(i *inode)
	walk = func(i *inode) {
		if seen[i] {
			return
		}
		seen[i] = true
		d.stats.Lost += i.revert(torn)
		for _, child := range i.entries {
			walk(child)
		}
	}
	walk(d.root)
	d.dead = false
}

// Lie makes syncs be answered and not done, or ends that. What was not synced
// meanwhile stays so until the next sync that is done.
func (d *Disk) Lie(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lying = on
}

// Sync makes everything that has been written survive.
func (d *Disk) Sync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	var walk func(i *inode)
	walk = func(i *inode) {
		i.sync()
		for _, child := range i.entries {
			walk(child)
		}
	}
	walk(d.root)
}

// SetRoom leaves room for so many bytes beyond what there is: what exceeds them is
// refused with ENOSPC. Negative means any number.
func (d *Disk) SetRoom(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = bytes
	if bytes > 0 {
		d.room = bytes / pageSize
	}
}

// Stats tells what has happened so far.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}
