// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A space is what a file system has left.
type space struct {
	free, whole   uint64 // bytes that this user may take, and all
	inodes, least uint64 // the same of inodes; least 0: the file system does not count them
}

// Disk writes to the disk of a directory as a daemon does, and says how long a sync
// took and what room is left. A directory that is missing is judged by the one above.
func Disk(r *Report, what, dir string) {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		if above := filepath.Dir(dir); above != dir {
			dir = above
			continue
		}
		r.Fail("disk", "disk_missing", "mount it", "%s: there is no directory", what)
		return
	}
	s, err := room(dir)
	if err != nil {
		r.Fail("disk", "disk_unreadable", "mount it", "%s: %v", what, err)
		return
	}
	judgeSpace(r, what, dir, s)
	judgeSync(r, what, dir)
}

func judgeSpace(r *Report, what, dir string, s space) {
	percent := s.free * 100 / max(s.whole, 1)
	switch {
	case s.whole == 0:
		r.Warn("disk", "disk_unknown", "put the directory on a file system that counts its blocks, or watch its room by other means", "%s: the file system of %s does not say what room is left", what, dir)
	case s.free < leastSpace:
		r.Fail("disk", "disk_full", "make room, or move the directory to a larger disk: what cannot be synced is not acknowledged", "%s: %d MiB are free on the disk of %s", what, s.free>>20, dir)
	case s.least > 0 && s.inodes < leastInodes:
		r.Fail("disk", "disk_no_inodes", "remove files, or make the file system anew with more inodes", "%s: room for %d more files on the disk of %s", what, s.inodes, dir)
	case percent < lowPercent:
		r.Warn("disk", "disk_low", "make room before it is full", "%s: %d MiB (%d %%) are free on the disk of %s", what, s.free>>20, percent, dir)
	default:
		r.OK("disk", "%s: %d MiB (%d %%) and %d files are free on the disk of %s", what, s.free>>20, percent, s.inodes, dir)
	}
}

// judgeSync writes and syncs a file a few times.
func judgeSync(r *Report, what, dir string) {
	took, err := timeSyncs(dir)
	switch {
	case err != nil:
		r.Fail("disk", "disk_no_sync", "look at the kernel's messages; a disk that does not sync loses what was acknowledged", "%s: a synced write in %s: %v", what, dir, bare(err))
	case took > deadSync:
		r.Fail("disk", "disk_no_sync", "look at the kernel's messages: the disk is broken, or many others write to it", "%s: a synced write in %s took %v", what, dir, took)
	case took > slowSync:
		r.Warn("disk", "disk_slow", "use a disk with a write cache that outlives a loss of power, or find out who else writes: every message waits for one sync", "%s: a synced write takes %v", what, took.Round(time.Microsecond))
	default:
		r.OK("disk", "%s: a synced write takes %v", what, took.Round(time.Microsecond))
	}
}

// timeSyncs returns the median.
func timeSyncs(dir string) (_ time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name()), f.Close()) }()
	block := make([]byte, 4096)
	var all [syncs]time.Duration
	for i := range all {
		began := time.Now()
		if _, err := f.WriteAt(block, int64(i*len(block))); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		all[i] = time.Since(began)
	}
	slices.SortFunc(all[:], cmp.Compare[time.Duration])
	return all[syncs/2], nil
}
