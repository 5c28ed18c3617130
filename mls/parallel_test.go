// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// cores lets a test run on so many cores.
func cores(t *testing.T, n int) {
	was := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(was) })
}

func TestEach(t *testing.T) {
	for _, n := range []int{1, 2, 7} {
		cores(t, n)
		done := make([]atomic.Bool, 100)
		i, err := each(len(done), func(i int) error { done[i].Store(true); return nil })
		if i != len(done) || err != nil {
			t.Fatalf("on %d cores: %d, %v", n, i, err)
		}
		for i := range done {
			if !done[i].Load() {
				t.Fatalf("on %d cores: call %d was left out", n, i)
			}
		}
		// The first failure is reported, whichever happens first.
		late := make(chan struct{})
		for range 50 {
			i, err = each(64, func(i int) error {
				if i == 9 && n > 1 {
					<-late // waits for a later failure
				}
				if i == 10 && n > 1 {
					defer func() { late <- struct{}{} }()
				}
				if i >= 9 {
					return fmt.Errorf("call %d", i)
				}
				return nil
			})
			if i != 9 || err == nil || err.Error() != "call 9" {
				t.Fatalf("on %d cores: %d, %v", n, i, err)
			}
		}
		if i, err := each(0, func(int) error { return errors.New("called") }); i != 0 || err != nil {
			t.Fatal(i, err)
		}
	}
}

// A panic ends in the goroutine of the caller, where it can be recovered.
func TestEachPanics(t *testing.T) {
	cores(t, 2)
	defer func() {
		if v := recover(); !strings.Contains(fmt.Sprint(v), "call 5") {
			t.Errorf("recovered %v", v)
		}
	}()
	_, _ = each(16, func(i int) error {
		if i >= 5 {
			panic(fmt.Sprint("call ", i))
		}
		return nil
	})
	t.Error("went on after a panic")
}

// An exclusive Authenticator fails when it is asked two things at once, and
// refuses one member.
type exclusive struct {
	t       *testing.T
	refuses string
	busy    atomic.Bool
}

func (e *exclusive) Authenticate(c Credential, _ []byte) error {
	if !e.busy.CompareAndSwap(false, true) {
		e.t.Error("the Authenticator was asked two things at once")
	}
	defer e.busy.Store(false)
	runtime.Gosched()
	if string(c.Identity) == e.refuses {
		return errors.New("not this one")
	}
	return nil
}

// Whatever the number of cores, the first bad leaf is the one that is named,
// and the Authenticator is asked one thing at a time.
func TestFirstBadLeafIsReported(t *testing.T) {
	x, _ := populated(t, quick, 12)
	spoil := func(leaves ...LeafIndex) *tree {
		broken := x.g.tree.clone()
		for _, l := range leaves {
			leaf := *broken.leaf(l)
			leaf.Signature = append([]byte{}, leaf.Signature...)
			leaf.Signature[len(leaf.Signature)-1] ^= 1
			broken.set(l.node(), &node{leaf: &leaf})
		}
		return broken
	}
	for _, n := range []int{1, 2, 5} {
		cores(t, n)
		for _, c := range []struct {
			tree    *tree
			refuses string
			want    error
			says    string
		}{
			{spoil(), "", nil, ""},
			{spoil(7, 3, 11), "", ErrSignature, "leaf 3:"},
			{spoil(7), "member 4", ErrCredential, "leaf 4:"},
			{spoil(4), "member 7", ErrSignature, "leaf 4:"},
		} {
			err := c.tree.checkLeaves(&x.g.ctx, &x.g.params, &exclusive{t: t, refuses: c.refuses}, now)
			if !errors.Is(err, c.want) || err != nil && !strings.HasPrefix(err.Error(), c.says) {
				t.Errorf("on %d cores: got %v, want %v at %s", n, err, c.want, c.says)
			}
		}
	}
}
