// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"valise/internal/disk"
	"valise/internal/testenv"
	"valise/wire"
)

const powerLosses = 12

// onDisk puts the daemon's data onto a disk that can lose its power, and returns what
// switches it off and on again, with the daemon.
func onDisk(t *testing.T, p *process, cfg disk.Config) (*disk.Disk, func()) {
	t.Helper()
	testenv.Need(t, "/dev/fuse", "fuse3")
	d := disk.New(cfg)
	data := filepath.Join(p.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	var m *disk.Mount
	mount := func() {
		var err error
		if m, err = d.Mount(data); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	}
	mount()
	t.Cleanup(func() {
		p.kill()
		unmount()
	})
	return d, func() {
		d.Cut()
		p.kill()
		unmount()
		d.Restore()
		mount()
		p.start()
	}
}

// The power goes, and with it all that the daemon wrote and did not sync; sometimes
// pieces of that survive, which is worse.
func TestPowerLossLosesNothing(t *testing.T) {
	for name, torn := range map[string]bool{"unsynced is gone": false, "torn": true} {
		t.Run(name, func(t *testing.T) {
			p, gw := newProcess(t)
			d, powerLoss := onDisk(t, p, disk.Config{Seed: 1, Torn: torn})
			j := newJourney(t, p, gw)
			j.through(powerLosses, powerLoss)
			j.judge()
			if s := d.Stats(); s.Cuts != powerLosses || s.Lost == 0 {
				t.Errorf("the power losses took nothing away: %+v", s)
			}
		})
	}
}

// The control: on a disk that answers syncs and keeps nothing, the same traffic does not
// get through, and the devices notice.
func TestLyingDiskLosesMail(t *testing.T) {
	p, gw := newProcess(t)
	d, powerLoss := onDisk(t, p, disk.Config{})
	j := newJourney(t, p, gw)
	d.Lie(true)
	j.through(powerLosses, powerLoss)
	var code wire.Code
	switch {
	case j.sender.err == nil && j.reader.err == nil:
		if lost, _ := j.reader.check(j.sender.sent); lost == 0 {
			t.Error("nothing was lost on a disk that keeps nothing: these tests do not see losses")
		}
	case errors.As(j.sender.err, &code):
		t.Logf("after %d power losses: %v", j.times, j.sender.err)
	default:
		t.Errorf("after %d power losses: sender: %v; reader: %v; want a loss, or the gateway's word that it has gone back", j.times, j.sender.err, j.reader.err)
	}
	if d.Stats().Lied == 0 {
		t.Error("the disk had no occasion to lie")
	}
}
