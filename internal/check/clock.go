// SPDX-License-Identifier: Apache-2.0

package check

import (
	"os"
	"time"
)

// A Reference is another clock: what it said, and between which two moments of ours it
// was asked. One that is a trace of the past (Past) only bounds from below.
type Reference struct {
	Name          string
	Said          time.Time
	Before, After time.Time
	Past          bool
}

// Clock compares this machine's clock with others, and says whether something keeps it
// right. now is time.Now.
func Clock(r *Report, now func() time.Time, references ...Reference) {
	synced, most, err := kernelClock()
	compared := 0
	for _, ref := range references {
		if ref.Said.IsZero() {
			continue
		}
		if !ref.Past {
			compared++
		}
		judgeReference(r, now, ref)
	}
	const do = "run chrony, ntpd or systemd-timesyncd against a clock that you trust"
	switch {
	case err != nil:
		r.Warn("clock", "clock_unknown", do, "the kernel does not say whether something keeps the clock right: %v", err)
	case !synced && compared == 0:
		r.Warn("clock", "clock_alone", do+": certificates, bulletins and statements are judged by this clock", "nothing keeps this clock right, and there was no other one to compare it with")
	case !synced:
		r.Warn("clock", "clock_unsynchronized", do, "nothing keeps this clock right")
	case most > farOffset:
		r.Fail("clock", "clock_uncertain", "look at what chronyc tracking or timedatectl timesync-status says", "the clock may be wrong by %v, says the kernel", most)
	default:
		r.OK("clock", "it is kept right, to %v at worst", most.Round(time.Microsecond))
	}
}

func judgeReference(r *Report, now func() time.Time, ref Reference) {
	if ref.Past {
		if ahead := ref.Said.Sub(now()); ahead > nearOffset {
			r.Fail("clock", "clock_behind", "set this machine's clock right, and find out which of the two was wrong", "%s is dated %v ahead of this clock", ref.Name, ahead.Round(time.Millisecond))
		}
		return
	}
	// Somewhere between Before and After our clock showed what it should compare with.
	offset := time.Duration(0)
	switch {
	case ref.Said.Before(ref.Before):
		offset = ref.Said.Sub(ref.Before)
	case ref.Said.After(ref.After):
		offset = ref.Said.Sub(ref.After)
	}
	const do = "set the clock of the machine that is wrong, and let something keep it right (chrony, systemd-timesyncd)"
	switch {
	case offset.Abs() > farOffset:
		r.Fail("clock", "clock_offset", do, "%s differs from this clock by %v", ref.Name, offset.Round(time.Millisecond))
	case offset.Abs() > nearOffset:
		r.Warn("clock", "clock_drift", do, "%s differs from this clock by %v", ref.Name, offset.Round(time.Millisecond))
	default:
		r.OK("clock", "it agrees with %s", ref.Name)
	}
}

// Written is the clock of when a file was last written, one that only bounds.
func Written(what, path string) Reference {
	info, err := os.Stat(path)
	if err != nil {
		return Reference{}
	}
	return Reference{Name: "the last line of " + what, Said: info.ModTime(), Past: true}
}
