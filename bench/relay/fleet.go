// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// loaders is how many client processes there are.
const loaders = 2

// A fleet is the client processes of one server.
type fleet struct {
	parts []*part
}

type part struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end io.Closer // its stdin
}

// newFleet starts the clients.
func (b *bench) newFleet(t *target, address, work string) (*fleet, error) {
	f := new(fleet)
	for i := range loaders {
		cmd := exec.Command(b.self, "load", toJSON(load{Kind: t.kind, Work: work, Address: address, Dir: b.dir, Index: i, Of: loaders}))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2); err != nil {
			return f, err
		}
		if err := cmd.Start(); err != nil {
			return f, err
		}
		f.parts = append(f.parts, &part{cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(out), end: in})
	}
	return f, nil
}

// do has all parts do a task at the same time, and adds up what they answer. The
// time is that of the slowest.
func (f *fleet) do(ctx context.Context, t task) (answer, error) {
	stop := context.AfterFunc(ctx, f.stop)
	defer stop()
	for _, p := range f.parts {
		if err := p.in.Encode(t); err != nil {
			return answer{}, err
		}
	}
	var sum answer
	var all error
	for _, p := range f.parts {
		var a answer
		if err := p.out.Decode(&a); err != nil {
			return answer{}, fmt.Errorf("%s: a client has ended: %w", t.Do, err)
		}
		if a.Error != "" {
			all = errors.Join(all, errors.New(a.Error))
		}
		sum.Count += a.Count
		sum.Total += a.Total
		sum.CPU += a.CPU
		sum.Seconds = max(sum.Seconds, a.Seconds)
	}
	return sum, all
}

// stop ends the clients: without their stdin they go.
func (f *fleet) stop() {
	for _, p := range f.parts {
		_ = p.end.Close()
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
	f.parts = nil
}
