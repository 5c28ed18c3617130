// SPDX-License-Identifier: Apache-2.0

//go:build linux

package reader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// firstPort is vpcd's usual port; the second card is on the next one. The
// network namespace is private, so the numbers are free.
const firstPort = 0x8c7b

// friendlyName is what Yubico's tools and piv-go's own tests look for.
const friendlyName = "Yubico YubiKey CCID (vpcd)"

// An ErrMissing names a part of the system that is not installed.
type ErrMissing struct{ What, Package string }

func (e *ErrMissing) Error() string {
	return fmt.Sprintf("reader: %s is missing: install the Debian package %s", e.What, e.Package)
}

// A daemon is one running pcscd.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// startDaemon starts pcscd with one vpcd reader and waits until it answers.
func startDaemon(cfg Config) (*daemon, error) {
	program, err := findProgram("pcscd")
	if err != nil {
		return nil, &ErrMissing{"pcscd", "pcscd"}
	}
	driver, err := findDriver()
	if err != nil {
		return nil, err
	}
	conf, err := writeReaderFile(driver)
	if err != nil {
		return nil, err
	}
	removeStale(cfg)
	log, err := os.OpenFile(filepath.Join(cfg.Dir, "pcscd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, "--foreground", "--config", conf)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("reader: start pcscd: %w", err)
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(d.done)
	}()
	if err := d.ready(cfg.Socket()); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// removeStale removes what a killed pcscd leaves and what would keep the next
// one from starting.
func removeStale(cfg Config) {
	os.Remove(cfg.Socket())
	os.Remove(filepath.Join(cfg.Dir, "pcscd", "pcscd.pid"))
}

// ready waits until pcscd lists its two readers.
func (d *daemon) ready(socket string) error {
	return poll(10*time.Second, "pcscd to answer", func() (bool, error) {
		select {
		case <-d.done:
			return false, errors.New("reader: pcscd ended at once: see pcscd.log")
		default:
		}
		states, err := readerStates(socket)
		return err == nil && len(states) == bays, nil
	})
}

// stop ends pcscd, gently at first.
func (d *daemon) stop() {
	d.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(2 * time.Second):
		d.cmd.Process.Kill()
		<-d.done
	}
}

func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}

// findDriver looks where distributions put drivers of serial readers.
func findDriver() (string, error) {
	for _, pattern := range []string{
		"/usr/lib/pcsc/drivers/serial/libifdvpcd.so",
		"/usr/lib/*/pcsc/drivers/serial/libifdvpcd.so",
		"/usr/lib64/pcsc/drivers/serial/libifdvpcd.so",
		"/usr/local/lib/pcsc/drivers/serial/libifdvpcd.so",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", &ErrMissing{"the vpcd driver of pcscd", "vsmartcard-vpcd"}
}

// writeReaderFile writes pcscd's configuration into the private /run.
func writeReaderFile(driver string) (dir string, err error) {
	dir = "/run/reader.conf.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text := fmt.Sprintf("FRIENDLYNAME %q\nDEVICENAME /dev/null:0x%X\nLIBPATH %s\nCHANNELID 0x%X\n",
		friendlyName, firstPort, driver, firstPort)
	return dir, os.WriteFile(filepath.Join(dir, "vpcd"), []byte(text), 0o644)
}

// A readerState is how pcscd sees one reader.
type readerState struct {
	name    string
	present bool
	events  uint32 // insertions and removals that pcscd noticed
}

// Wire format of pcscd's list of readers (winscard_msg.h and eventhandler.h of
// pcsc-lite 1.9): a request of two 32-bit words in the host's order, size and
// command; the answer is 16 records of 184 bytes: name[128], counter, state,
// sharing, ATR[33] and padding, length of the ATR, protocol.
const (
	cmdGetReadersState = 0x12
	maxReaders         = 16
	readerRecord       = 184
	readerName         = 128
	eventsOffset       = 128
	stateOffset        = 132
	statePresent       = 0x0004
	atrLengthOffset    = 176
)

// readerStates asks pcscd which readers it has and whether a card is in them.
func readerStates(socket string) ([]readerState, error) {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	request := binary.NativeEndian.AppendUint32(nil, 0)
	request = binary.NativeEndian.AppendUint32(request, cmdGetReadersState)
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	answer := make([]byte, maxReaders*readerRecord)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	var states []readerState
	for record := range bytesChunks(answer, readerRecord) {
		name, _, _ := bytes.Cut(record[:readerName], []byte{0})
		if len(name) == 0 {
			continue
		}
		state := binary.NativeEndian.Uint32(record[stateOffset:])
		atrLength := binary.NativeEndian.Uint32(record[atrLengthOffset:])
		events := binary.NativeEndian.Uint32(record[eventsOffset:])
		states = append(states, readerState{string(name), state&statePresent != 0 && atrLength > 0, events})
	}
	return states, nil
}

func bytesChunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) >= n && yield(b[:n]) {
			b = b[n:]
		}
	}
}

// bayState is how pcscd sees a bay.
func bayState(socket string, bay int) (readerState, error) {
	states, err := readerStates(socket)
	if err != nil {
		return readerState{}, err
	}
	suffix := fmt.Sprintf(" %02d", bay)
	for _, s := range states {
		if strings.HasPrefix(s.name, friendlyName) && strings.HasSuffix(s.name, suffix) {
			return s, nil
		}
	}
	return readerState{}, fmt.Errorf("reader: pcscd does not list bay %d", bay)
}

// poll waits for a condition. It asks again every few milliseconds, because
// pcscd has no way to say so without a client library.
func poll(limit time.Duration, what string, done func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("reader: gave up waiting for %s after %v", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
