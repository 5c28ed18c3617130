// SPDX-License-Identifier: Apache-2.0

// Package disk is a disk that can lose its power: a file system whose mounts show
// what programs have written, and which keeps, when the power goes, only what they
// had synced. Killing a process proves nothing about syncing, because the kernel
// still writes what the process has handed over; this does.
//
//	d := disk.New(disk.Config{Seed: 1})
//	m, err := d.Mount(dir) // run a daemon on dir
//	d.Cut()                // from now on nothing reaches the disk, and every call fails
//	…                      // kill the daemon
//	err = m.Unmount()
//	d.Restore()            // what was not synced is gone
//	m, err = d.Mount(dir)  // start the daemon again
//
// What survives is the least that POSIX promises: a file's bytes and its size as of
// its last fsync or fdatasync, a folder's entries as of the folder's last fsync. A
// new file that was synced is still lost when its folder was not. With Config.Torn
// some of what was not synced survives, sector by sector and out of order, as a
// real disk's cache leaves it.
//
// A disk can also be full (SetRoom), and it can lie (Lie): then syncs are answered
// and nothing is kept. A durability test runs a second time on a lying disk, and
// must lose something there.
//
// Everything is in memory, for tests only. Never put anything on it that is to last.
package disk
