// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/internal/testenv"
)

// syncDelay is for how long strace holds up each sync of the daemon. A datagram on this
// machine's loopback takes less than a hundredth of it, so whatever arrives after a
// delayed sync was sent after it.
const syncDelay = 100 * time.Millisecond

// The real daemon under strace, one message at a time: the store's file is synced after
// the message came and before the datagram leaves that acknowledges it. The kernel's
// own record of the system calls says so, and the device's clock.
func TestSyncPrecedesAcknowledgement(t *testing.T) {
	strace := testenv.Need(t, "strace", "strace")
	p, gw := newProcess(t)
	trace := filepath.Join(t.TempDir(), "trace")
	p.wrap = []string{
		strace, "-D", "-f", "-q", "-y", "-ttt", "-T", "-s", "0", "-o", trace,
		"-e", "trace=fsync,fdatasync,sendmsg,sendmmsg,sendto", "-e", "signal=none",
		"-e", "inject=fsync,fdatasync:delay_enter=" + strconv.FormatInt(syncDelay.Microseconds(), 10),
	}
	j := newJourney(t, p, gw)
	type sent struct{ asked, answered time.Time }
	var messages []sent
	for i := range 5 {
		frame := j.sender.device.sealed(j.sender.group, strconv.Itoa(i))
		s := sent{asked: time.Now()}
		j.sender.device.must(frame)
		s.answered = time.Now()
		messages = append(messages, s)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err, p.log.String())
	}
	p.cmd = nil
	var calls []systemCall
	until(t, "strace to end", func() bool {
		data, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		calls = parseTrace(string(data))
		return strings.Contains(string(data), "+++ exited with 0 +++")
	})
	data := filepath.Join(p.dir, "data") + "/"
	for i, m := range messages {
		synced := last(calls, func(c systemCall) bool {
			return strings.HasSuffix(c.name, "sync") && strings.HasPrefix(c.file, data) && holdsMail(c.file) && c.result == 0 &&
				c.began.After(m.asked) && c.ended.Before(m.answered)
		})
		if synced == nil {
			t.Errorf("message %d was acknowledged after %v, and no file below data was synced meanwhile", i, m.answered.Sub(m.asked))
			continue
		}
		acknowledged := first(calls, func(c systemCall) bool {
			return strings.HasPrefix(c.name, "send") && c.began.After(synced.ended) && c.began.Before(m.answered)
		})
		if acknowledged == nil {
			t.Errorf("message %d: its acknowledgement did not leave after the sync of %s", i, filepath.Base(synced.file))
			continue
		}
		t.Logf("message %d: %s of %s for %v, acknowledged %v later", i, synced.name, filepath.Base(synced.file),
			synced.ended.Sub(synced.began).Round(time.Millisecond), acknowledged.began.Sub(synced.ended).Round(time.Microsecond))
	}
}

// A systemCall is one that strace saw begin and end.
type systemCall struct {
	name, file   string
	result       int
	began, ended time.Time
}

// holdsMail says whether a new message goes into a file: the database's log, or a segment
// of the journal in front of it.
func holdsMail(path string) bool {
	name := filepath.Base(path)
	return strings.HasSuffix(name, "-wal") || strings.HasPrefix(name, "segment-")
}

func last(calls []systemCall, match func(systemCall) bool) (found *systemCall) {
	for i := range calls {
		if match(calls[i]) {
			found = &calls[i]
		}
	}
	return found
}

func first(calls []systemCall, match func(systemCall) bool) *systemCall {
	for i := range calls {
		if match(calls[i]) {
			return &calls[i]
		}
	}
	return nil
}

var (
	wholeCall   = regexp.MustCompile(`^(\d+) +([\d.]+) (\w+)\(\d+(?:<([^>]*)>)?.*\) = (-?\d+)\b.*<([\d.]+)>$`)
	begunCall   = regexp.MustCompile(`^(\d+) +([\d.]+) (\w+)\(\d+(?:<([^>]*)>)?.* <unfinished \.\.\.>$`)
	resumedCall = regexp.MustCompile(`^(\d+) +([\d.]+) <\.\.\. (\w+) resumed>.*\) = (-?\d+)\b.*<([\d.]+)>$`)
)

// parseTrace reads strace's output. A call that another thread's interrupts is printed in
// two lines.
func parseTrace(text string) (calls []systemCall) {
	pending := map[string]systemCall{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := wholeCall.FindStringSubmatch(line); m != nil {
			began := unixTime(m[2])
			result, _ := strconv.Atoi(m[5])
			calls = append(calls, systemCall{m[3], m[4], result, began, began.Add(seconds(m[6]))})
		} else if m := begunCall.FindStringSubmatch(line); m != nil {
			pending[m[1]] = systemCall{name: m[3], file: m[4], began: unixTime(m[2])}
		} else if m := resumedCall.FindStringSubmatch(line); m != nil {
			c := pending[m[1]]
			delete(pending, m[1])
			c.result, _ = strconv.Atoi(m[4])
			c.ended = unixTime(m[2])
			calls = append(calls, c)
		}
	}
	return calls
}

func unixTime(text string) time.Time { return time.Unix(0, int64(seconds(text))) }

func seconds(text string) time.Duration {
	whole, part, _ := strings.Cut(text, ".")
	s, _ := strconv.ParseInt(whole, 10, 64)
	us, _ := strconv.ParseInt((part + "000000")[:6], 10, 64)
	return time.Duration(s)*time.Second + time.Duration(us)*time.Microsecond
}
