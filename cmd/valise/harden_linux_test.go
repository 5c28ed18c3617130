// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/internal/testenv"
)

// Nobody but root looks into a running agent, and it leaves no core file. The control
// is another program of the same user: its memory belongs to that user.
func TestAgentMemoryIsItsOwn(t *testing.T) {
	dir, err := os.MkdirTemp("", "valise-memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	user := os.Getuid()
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if user == 0 {
		user = 65534
		attr.Credential = &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}
	}
	program, err := os.ReadFile(testenv.Build(t, "./cmd/valise"))
	if err != nil {
		t.Fatal(err)
	}
	home, binary := filepath.Join(dir, "home"), filepath.Join(dir, "valise")
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.WriteFile(binary, program, 0o755), os.Mkdir(home, 0o700), os.Chown(home, user, -1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	start := func(name string, args ...string) int {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.SysProcAttr = "/", attr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd.Process.Pid
	}
	owner := func(pid int) int {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Sys().(*syscall.Stat_t).Uid)
	}
	control, agent := start("sleep", "60"), start(binary, "agent", "--home", home)
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err := os.Stat(filepath.Join(home, "agent.sock")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent does not listen")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := owner(control); got != user {
		t.Fatalf("another program's memory belongs to user %d, want %d", got, user)
	}
	if got := owner(agent); got != 0 {
		t.Errorf("the agent's memory can be read by user %d", got)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", agent))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok && strings.Join(strings.Fields(rest), " ") != "0 0 bytes" {
			t.Errorf("the agent may leave a core file: %s", line)
		}
	}
}
