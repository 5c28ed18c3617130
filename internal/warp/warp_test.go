// SPDX-License-Identifier: Apache-2.0

package warp

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestMain is also the process whose clock is set: it says what time it is whenever it is
// asked, while other threads look at the clock all the time.
func TestMain(m *testing.M) {
	if os.Getenv("WARP_CHILD") == "" {
		os.Exit(m.Run())
	}
	runtime.GOMAXPROCS(4)
	for range 3 {
		go func() {
			for time.Now().Unix() > 0 { //nolint:revive // looking is the point
			}
		}()
	}
	begin := time.Now()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		t := time.Now()
		fmt.Println(t.UnixNano(), int64(t.Sub(begin))) // the difference is monotonic
	}
}

// One process's wall clock jumps, its monotonic clock does not, and everybody else's time
// goes on.
func TestSet(t *testing.T) {
	if !Supported {
		t.Skip("warp works on Linux on amd64 only")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WARP_CHILD=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	end := func() { once.Do(func() { cmd.Process.Kill(); cmd.Wait() }) }
	t.Cleanup(end)
	answers := bufio.NewScanner(out)
	last := int64(0)
	ask := func(want time.Duration) {
		t.Helper()
		if _, err := in.Write([]byte("\n")); err != nil || !answers.Scan() {
			t.Fatal("the process has ended", err)
		}
		var wall, mono int64
		if _, err := fmt.Sscan(answers.Text(), &wall, &mono); err != nil {
			t.Fatal(strconv.Quote(answers.Text()), err)
		}
		if wrong := time.Until(time.Unix(0, wall)) - want; wrong.Abs() > 2*time.Second {
			t.Errorf("the clock is wrong by %v, want %v", time.Until(time.Unix(0, wall)), want)
		}
		if mono < last || mono > last+int64(time.Minute) {
			t.Errorf("the monotonic clock went from %v to %v", time.Duration(last), time.Duration(mono))
		}
		last = mono
	}
	ask(0)
	c, err := Take(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{0, 3 * time.Hour, -26 * time.Hour, 0, 90 * time.Second} {
		if err := c.Set(d); err != nil {
			t.Fatal(err)
		}
		ask(d)
	}
	end()
	if _, err := Take(cmd.Process.Pid); err == nil {
		t.Error("a process that has gone was given a clock")
	}
}
