// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A Network is a network namespace of its own: nothing is in it but a loopback, and
// whatever socket somebody opens there. A nil *Network is the stage's own.
type Network struct{ namespace *os.File }

// NewNetwork makes a network. It takes the right to make namespaces.
func NewNetwork() (*Network, error) {
	n := new(Network)
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace: %w", err)
		}
		var err error
		if n.namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return RaiseLoopback()
	})
	return n, err
}

// Do runs f inside the network: sockets that it opens and processes that it starts
// belong there.
func (n *Network) Do(f func() error) error {
	if n == nil {
		return f()
	}
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves this thread, which must be locked and end with its goroutine.
func (n *Network) enter() error {
	if n == nil {
		return nil
	}
	if err := unix.Setns(int(n.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	return nil
}

// Close forgets the network; it goes with the last process and socket in it.
func (n *Network) Close() error { return n.namespace.Close() }

// onThread runs f on a thread that ends with it, because its namespace is changed.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// RaiseLoopback switches on the loopback of the network that this thread is in.
func RaiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request, err := unix.NewIfreq("lo")
	if err == nil {
		request.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
	}
	if err != nil {
		err = fmt.Errorf("raise the loopback: %w", err)
	}
	return errors.Join(err, unix.Close(fd))
}
