// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A service is what a load process knows of a server: how its clients make places
// for mail, send and receive. Numbers name places and senders.
type service interface {
	// mailbox makes a place for mail; its receiver is not there yet.
	mailbox(box int) error
	// sender connects one who will send to these boxes.
	sender(id int, boxes []int) (sender, error)
	// receiver connects the owner of a box.
	receiver(box int) (receiver, error)
	// enroll makes what a client has before it connects for the first time.
	enroll(id int) error
	// idle makes one connection over which mail could come, of who was enrolled; it
	// returns when the server has answered.
	idle(id int) (io.Closer, error)
}

// A sender has one connection. add and write have one caller, acked another.
type sender interface {
	// add appends the n-th message, from 0, to b.
	add(b []byte, n int) []byte
	write(b []byte) error
	// acked waits for acknowledgements and says how many came.
	acked() (int, error)
	Close() error
}

// A receiver has one connection and one caller.
type receiver interface {
	// open asks for mail.
	open() error
	// received waits for mail, acknowledges what is there and says how much it was.
	received() (int, error)
	Close() error
}

// A task is what the program asks of a load process, one line of JSON; an answer
// is what it gets.
type (
	task struct {
		Do       string // pairs, run, boxes, store, connect, drain, idle, leave
		Count    int    // of pairs, boxes, messages, connections
		Senders  int
		InFlight int
		Warm     time.Duration
		Length   time.Duration
	}
	answer struct {
		Count   int     // messages within the time
		Total   int     // messages at all
		Seconds float64 // what it took
		CPU     float64 // seconds of the load processes' own
		Error   string
	}
)

// A loader is a load process: every part of it with number Index of Of.
type loader struct {
	service service
	index   int
	of      int

	pairs   []*pair
	boxes   []int
	senders []sender
	shares  [][]int // boxes of each sender
	opened  []receiver
	idles   []io.Closer
}

// A load is the configuration of a load process: which server, and which part.
type load struct {
	Kind    string // valise, nats, mqtt, bare
	Work    string // online, offline, idle
	Address string
	Dir     string // of the authority's files
	Index   int
	Of      int
}

// loadMain is the program's other life: it does what it is told on stdin.
func loadMain(config string) error {
	var l load
	if err := json.Unmarshal([]byte(config), &l); err != nil {
		return err
	}
	service, err := newService(&l)
	if err != nil {
		return err
	}
	ld := &loader{service: service, index: l.Index, of: l.Of}
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var t task
		if err := in.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := ld.do(&t)
		if err != nil {
			a.Error = fmt.Sprintf("%s: %v", t.Do, err)
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func newService(l *load) (service, error) {
	switch l.Kind {
	case "valise":
		return newValiseLoad(l)
	case "nats":
		return newNATSLoad(l)
	case "mqtt":
		return newMQTTLoad(l)
	case "bare":
		return newBareLoad(l)
	}
	return nil, fmt.Errorf("unknown server %q", l.Kind)
}

func (ld *loader) do(t *task) (answer, error) {
	switch t.Do {
	case "pairs":
		return answer{}, ld.makePairs(t.Count)
	case "run":
		return ld.run(t)
	case "boxes":
		return answer{}, ld.makeBoxes(t)
	case "store":
		return ld.store(t)
	case "connect":
		return ld.connect()
	case "drain":
		return ld.drain(t)
	case "idle":
		return ld.makeIdle(t)
	case "leave":
		return answer{}, ld.leave()
	}
	return answer{}, errors.New("unknown task")
}

// mine lists this process's numbers below n.
func (ld *loader) mine(n int) (list []int) {
	for i := ld.index; i < n; i += ld.of {
		list = append(list, i)
	}
	return list
}

// each does something for every element, some at a time.
func each(list []int, atOnce int, do func(int) error) error {
	var mu sync.Mutex
	var failed error
	queue := make(chan int)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for i := range queue {
				if err := do(i); err != nil {
					mu.Lock()
					failed = cmp.Or(failed, err) // one says enough
					mu.Unlock()
				}
			}
		})
	}
	for _, i := range list {
		queue <- i
	}
	close(queue)
	all.Wait()
	return failed
}

// atOnce is how many connections a load process makes at the same time.
const atOnce = 16

// makeIdle makes connections and keeps them.
func (ld *loader) makeIdle(t *task) (answer, error) {
	var mu sync.Mutex
	if err := each(ld.mine(t.Count), atOnce, ld.service.enroll); err != nil {
		return answer{}, err
	}
	begin := time.Now()
	err := each(ld.mine(t.Count), atOnce, func(i int) error {
		c, err := ld.service.idle(i)
		if err != nil {
			return err
		}
		mu.Lock()
		ld.idles = append(ld.idles, c)
		mu.Unlock()
		return nil
	})
	return answer{Count: len(ld.idles), Total: len(ld.idles), Seconds: time.Since(begin).Seconds()}, err
}

// leave ends all connections.
func (ld *loader) leave() error {
	for _, p := range ld.pairs {
		p.close()
	}
	for _, s := range ld.senders {
		_ = s.Close()
	}
	for _, r := range ld.opened {
		_ = r.Close()
	}
	for _, c := range ld.idles {
		_ = c.Close()
	}
	return nil
}

// patience bounds every wait for a server.
const patience = 60 * time.Second

func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}
