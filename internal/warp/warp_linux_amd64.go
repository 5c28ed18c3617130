// SPDX-License-Identifier: Apache-2.0

package warp

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Supported says whether Take can work here.
const Supported = true

// tries bounds how often a thread may be met at the very spot that is to be written.
const tries = 50

// code is what takes the place of clock_gettime: it asks the kernel, and adds the offset
// behind it to the seconds of CLOCK_REALTIME.
//
//	mov  eax, 228 (clock_gettime)     test eax, eax     jnz out
//	test edi, edi (CLOCK_REALTIME)    jnz out
//	mov  rdx, [slot]                  add [rsi], rdx
//	out: ret
var code = []byte{
	0xb8, 228, 0, 0, 0, 0x0f, 0x05, 0x85, 0xc0, 0x75, 14,
	0x85, 0xff, 0x75, 10,
	0x48, 0x8b, 0x15, 10, 0, 0, 0, 0x48, 0x01, 0x16,
	0xc3,
}

// slot is where the offset lies behind the beginning of code, which is aligned to 64.
const slot = 32

// A Clock is a process's own.
type Clock struct {
	pid    int
	offset int64 // address of the offset
}

// Take gives a process a clock of its own, which shows the right time at first.
func Take(pid int) (*Clock, error) {
	begin, end, err := vdso(pid)
	if err != nil {
		return nil, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	image := make([]byte, end-begin)
	if _, err := mem.ReadAt(image, begin); err != nil {
		return nil, fmt.Errorf("warp: read the vDSO: %w", err)
	}
	entry, err := symbol(image)
	if err != nil {
		return nil, err
	}
	// The image ends with tables that nobody reads in a running process.
	at := (end-begin-128)&^63 + begin
	c := &Clock{pid: pid, offset: at + slot}
	text := make([]byte, slot+8)
	copy(text, code)
	if _, err := mem.WriteAt(text, at); err != nil {
		return nil, fmt.Errorf("warp: write the vDSO: %w", err)
	}
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(at-(begin+entry+5)))
	return c, stopped(pid, begin+entry, begin+entry+int64(len(jump)), func() error {
		_, err := mem.WriteAt(jump, begin+entry)
		return err
	})
}

// Set lets the process's wall clock be wrong by d, to the second.
func (c *Clock) Set(d time.Duration) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(d/time.Second))), c.offset)
	return errors.Join(err, mem.Close())
}

// vdso finds where the vDSO lies in a process.
func vdso(pid int) (begin, end int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x", &begin, &end)
			return begin, end, err
		}
	}
	return 0, 0, fmt.Errorf("warp: process %d has no vDSO", pid)
}

// symbol finds clock_gettime in the vDSO's image.
func symbol(image []byte) (int64, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, fmt.Errorf("warp: the vDSO: %w", err)
	}
	list, err := f.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("warp: the vDSO's symbols: %w", err)
	}
	for _, s := range list {
		if s.Name == "__vdso_clock_gettime" {
			return int64(s.Value), nil
		}
	}
	return 0, errors.New("warp: the vDSO has no clock_gettime")
}

// stopped runs f while the process stands still, and no thread of it is between two
// addresses.
func stopped(pid int, from, to int64, f func() error) error {
	for range tries {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		inside, err := within(pid, from, to)
		if err == nil && !inside {
			err = f()
		}
		if err := errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)); err != nil || !inside {
			return err
		}
	}
	return errors.New("warp: the process does nothing but look at its clock")
}

// within waits until all threads of a process stand still and says whether one of them
// has an address of the span next.
func within(pid int, from, to int64) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil || len(threads) == 0 {
		return false, fmt.Errorf("warp: process %d has gone", pid)
	}
	for _, path := range threads {
		for deadline := time.Now().Add(5 * time.Second); ; {
			line, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				break
			}
			if err != nil {
				return false, err
			}
			fields := strings.Fields(string(line)) // a number, arguments, stack pointer, program counter
			if len(fields) >= 3 {
				pc, err := strconv.ParseInt(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
				if err == nil && pc > from && pc < to {
					return true, nil
				}
				break
			}
			if time.Now().After(deadline) {
				return false, fmt.Errorf("warp: a thread of process %d does not stop", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return false, nil
}
