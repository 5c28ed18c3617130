// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"valise/bench/lean"
)

// A load is the configuration of the clients' process.
type load struct {
	Dir       string   // of the authority's files
	Addresses []string // of the gateways
	Pairs     int
}

// A task is what the clients are asked for, one line of JSON, and an answer what comes back.
type (
	task struct {
		Do     string        // run, wake
		Flight int           // of each pair
		Warm   time.Duration // before what is counted
		Length time.Duration
		Count  int // of wake-ups of each kind
	}
	answer struct {
		Count    int // messages within Length
		Seconds  float64
		CPU      float64   // seconds, of the clients, within Length
		In, Over []float64 // milliseconds to a receiver at the sender's gateway, and at another
		Error    string
	}
)

// patience bounds every wait for a gateway.
const patience = 60 * time.Second

// loadMain is the program's other life: it does what it is told on stdin.
func loadMain(config string) error {
	var l load
	if err := json.Unmarshal([]byte(config), &l); err != nil {
		return err
	}
	ld, err := newLoader(l)
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{}); err != nil { // ready
		return err
	}
	for {
		var t task
		if err := in.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var a answer
		switch t.Do {
		case "run":
			a, err = ld.run(&t)
		case "wake":
			a, err = ld.wake(&t)
		default:
			err = errors.New("unknown task")
		}
		if err != nil {
			a.Error = fmt.Sprintf("%s: %v", t.Do, err)
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// A loader has all devices.
type loader struct {
	load
	authority *lean.Authority
	pairs     []*pair
	in, over  *pair // for wake-ups; over: nil where there is one gateway
	made      int
}

func newLoader(l load) (ld *loader, err error) {
	ld = &loader{load: l}
	if ld.authority, err = lean.Load(l.Dir, domain); err != nil {
		return nil, err
	}
	n := len(l.Addresses)
	for i := range l.Pairs {
		p, err := ld.newPair(i%n, i/n%n)
		if err != nil {
			return nil, err
		}
		ld.pairs = append(ld.pairs, p)
	}
	if ld.in, err = ld.newPair(0, 0); err == nil && n > 1 {
		ld.over, err = ld.newPair(0, 1)
	}
	return ld, err
}

// device makes a device of its own for each.
func (ld *loader) device(kind string) (*lean.Device, error) {
	ld.made++
	return ld.authority.NewDevice(fmt.Sprint(kind, ld.made))
}

// textSize makes a message whose padded content has 1,024 bytes, and sealedPool is how many are
// sealed for each pair: they are sent again and again, under new counters.
const (
	textSize   = 920
	sealedPool = 16
)

// newPair connects a sender to one gateway and its receiver to another, and makes their group.
func (ld *loader) newPair(from, to int) (*pair, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	receiver, err1 := ld.device("receiver")
	sender, err2 := ld.device("sender")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	offer, _, err := receiver.Offer()
	if err != nil {
		return nil, err
	}
	r, err := receiver.Connect(ctx, ld.Addresses[to])
	if err != nil {
		return nil, err
	}
	if err := r.Listen(ctx); err != nil {
		return nil, err
	}
	s, err := sender.Connect(ctx, ld.Addresses[from])
	if err != nil {
		return nil, err
	}
	g, err := s.Found(ctx, offer)
	if err != nil {
		return nil, err
	}
	p := newPair(s, r)
	text := make([]byte, textSize)
	for n := range sealedPool {
		_, _ = rand.Read(text) // never fails
		send, err := ld.authority.Law().Seal(g, text, uint64(n+1))
		if err != nil {
			return nil, err
		}
		frame, err := lean.Frame(send)
		if err != nil {
			return nil, err
		}
		p.frames = append(p.frames, frame)
	}
	return p, nil
}

// run has all pairs keep messages under way, and counts what is done within the time.
func (ld *loader) run(t *task) (answer, error) {
	count := func() (n int) {
		for _, p := range ld.pairs {
			n += p.count()
		}
		return n
	}
	end := time.Now().Add(t.Warm + t.Length)
	failed := make(chan error, len(ld.pairs))
	for _, p := range ld.pairs {
		go func() { failed <- p.run(t.Flight, end) }()
	}
	time.Sleep(t.Warm)
	first, from, used := count(), time.Now(), processorTime()
	time.Sleep(time.Until(end))
	a := answer{Count: count() - first, Seconds: time.Since(from).Seconds(), CPU: (processorTime() - used).Seconds()}
	var all error
	for range ld.pairs {
		all = errors.Join(all, <-failed)
	}
	return a, all
}

// wake sends one message at a time, by turns to the two receivers.
func (ld *loader) wake(t *task) (a answer, err error) {
	for range t.Count {
		for _, p := range []*pair{ld.in, ld.over} {
			if p == nil {
				continue
			}
			took, err := p.one()
			if err != nil {
				return a, err
			}
			if p == ld.in {
				a.In = append(a.In, took)
			} else {
				a.Over = append(a.Over, took)
			}
		}
	}
	slices.Sort(a.In)
	slices.Sort(a.Over)
	return a, nil
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
