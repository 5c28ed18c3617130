// SPDX-License-Identifier: Apache-2.0

package check

import (
	"testing"

	"valise/internal/disk"
	"valise/internal/testenv"
)

// reasons are the reason codes of what is not ok, each once.
func reasons(r *Report) map[string]Result {
	all := make(map[string]Result)
	for _, l := range r.Lines() {
		if l.Result != OK {
			all[l.Reason] = l.Result
		}
	}
	return all
}

// A disk that is full, nearly so, or gives up syncs is found beside one that works.
func TestDisk(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(*disk.Disk)
		want  string
		as    Result
	}{
		"control":  {func(*disk.Disk) {}, "", OK},
		"full":     {func(d *disk.Disk) { d.SetRoom(leastSpace - 1) }, "disk_full", Fail},
		"low":      {func(d *disk.Disk) { d.SetRoom(leastSpace + 1<<20) }, "disk_low", Warn},
		"no room":  {func(d *disk.Disk) { d.SetRoom(0) }, "disk_no_sync", Fail},
		"power is": {func(d *disk.Disk) { d.Cut() }, "disk_missing", Fail},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.Need(t, "/dev/fuse", "fuse3")
			d := disk.New(disk.Config{Seed: 1})
			dir := t.TempDir()
			m, err := d.Mount(dir)
			testenv.Can(t, "mounts of FUSE file systems", err)
			defer m.Unmount()
			c.fault(d)
			r := new(Report)
			if name == "power is" {
				judgeSync(r, "data", dir)
				c.want = "disk_no_sync"
			} else {
				Disk(r, "data", dir)
			}
			found := reasons(r)
			if name == "control" && (len(r.Lines()) != 2 || found["disk_full"] != "" || found["disk_no_sync"] != "") {
				t.Errorf("%v", r.Lines())
			}
			if c.want != "" && found[c.want] != c.as {
				t.Errorf("want %s: %v", c.want, r.Lines())
			}
			if c.want != "" && r.Lines()[0].Do == "" {
				t.Error("it does not say what to do")
			}
		})
	}
}
