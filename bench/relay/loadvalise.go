// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"

	"valise/bench/lean"
	"valise/mls"
)

const domain = "interieur.example"

// valiseLoad speaks our protocol with lean devices.
type valiseLoad struct {
	address   string
	authority *lean.Authority

	mu     sync.Mutex
	owners map[int]*owner       // guarded by mu
	idlers map[int]*lean.Device // guarded by mu
}

// An owner is the device of a mailbox and what it offers to be added with.
type owner struct {
	device *lean.Device
	offer  *mls.KeyPackage
}

func newValiseLoad(l *load) (*valiseLoad, error) {
	authority, err := lean.Load(l.Dir, domain)
	return &valiseLoad{address: l.Address, authority: authority, owners: make(map[int]*owner), idlers: make(map[int]*lean.Device)}, err
}

// mailbox makes a device and has it connect once: only then can it be added.
func (v *valiseLoad) mailbox(box int) error {
	device, err := v.authority.NewDevice(fmt.Sprintf("owner%d", box))
	if err != nil {
		return err
	}
	offer, _, err := device.Offer()
	if err != nil {
		return err
	}
	ctx, cancel := within()
	defer cancel()
	conn, err := device.Connect(ctx, v.address)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.owners[box] = &owner{device: device, offer: offer}
	v.mu.Unlock()
	return conn.Close()
}

func (v *valiseLoad) owner(box int) *owner {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.owners[box]
}

type valiseSender struct {
	*lean.Conn
	frames [][][]byte // of each group
}

// sender makes a device, a group with each owner, and messages.
func (v *valiseLoad) sender(id int, boxes []int) (sender, error) {
	device, err := v.authority.NewDevice(fmt.Sprintf("sender%d", id))
	if err != nil {
		return nil, err
	}
	ctx, cancel := within()
	defer cancel()
	conn, err := device.Connect(ctx, v.address)
	if err != nil {
		return nil, err
	}
	s := &valiseSender{Conn: conn}
	for _, box := range boxes {
		g, err := conn.Found(ctx, v.owner(box).offer)
		if err != nil {
			return nil, err
		}
		sends, err := seal(v.authority.Law(), g)
		if err != nil {
			return nil, err
		}
		var frames [][]byte
		for _, send := range sends {
			frame, err := lean.Frame(send)
			if err != nil {
				return nil, err
			}
			frames = append(frames, frame)
		}
		s.frames = append(s.frames, frames)
	}
	return s, nil
}

func (s *valiseSender) add(b []byte, n int) []byte {
	frames := s.frames[n%len(s.frames)]
	return s.AppendSealed(b, frames[n/len(s.frames)%len(frames)])
}

func (s *valiseSender) write(b []byte) error { return s.Write(b) }
func (s *valiseSender) acked() (int, error)  { return s.Answers() }

type valiseReceiver struct{ *lean.Conn }

func (v *valiseLoad) receiver(box int) (receiver, error) {
	ctx, cancel := within()
	defer cancel()
	conn, err := v.owner(box).device.Connect(ctx, v.address)
	return valiseReceiver{conn}, err
}

func (r valiseReceiver) open() error {
	ctx, cancel := within()
	defer cancel()
	return r.Listen(ctx)
}

func (r valiseReceiver) received() (int, error) { return r.Receive() }

func (v *valiseLoad) enroll(id int) error {
	device, err := v.authority.NewDevice(fmt.Sprintf("idle%d", id))
	v.mu.Lock()
	defer v.mu.Unlock()
	v.idlers[id] = device
	return err
}

// idle makes a connection that has its delivery stream open.
func (v *valiseLoad) idle(id int) (io.Closer, error) {
	v.mu.Lock()
	device := v.idlers[id]
	v.mu.Unlock()
	ctx, cancel := within()
	defer cancel()
	conn, err := device.Connect(ctx, v.address)
	if err != nil {
		return nil, err
	}
	return conn, conn.Listen(ctx)
}
