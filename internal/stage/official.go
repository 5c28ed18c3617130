// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// An Official is a person with a device: a card in a reader and a home for the
// agent's state.
type Official struct {
	Name    string
	Address string
	Home    string
	Card    *Card
	Network *Network // where commands and the agent run; nil: the stage's own

	GatewayTCP string // HOST:PORT of the one gateway for networks without UDP, as enrolling is told; empty: the gateway's

	stage *Stage

	mu      sync.Mutex
	started []*Process // guarded by mu: commands in the background
}

// NewOfficial prepares a person; nothing is enrolled yet.
func (s *Stage) NewOfficial(name, address string, card *Card) *Official {
	o := &Official{Name: name, Address: address, Home: filepath.Join(s.Dir, name), Card: card, stage: s}
	s.officials = append(s.officials, o)
	return o
}

// Run runs one command of valise as this person.
func (o *Official) Run(ctx context.Context, args ...string) (string, error) {
	return o.Network.output(ctx, o.Card.Reader.Env, o.stage.command("valise"), append([]string{"--home", o.Home}, args...)...)
}

// Start runs a command of valise in the background.
func (o *Official) Start(name string, args ...string) (*Process, error) {
	p, err := o.stage.ps.startIn(o.Network, o.Name+"-"+name, o.Card.Reader.Env, o.stage.command("valise"), append([]string{"--home", o.Home}, args...)...)
	if err == nil {
		o.mu.Lock()
		o.started = append(o.started, p)
		o.mu.Unlock()
	}
	return p, err
}

// Enroll makes keys in the card and gets a certificate with an invitation. Several gateways
// are the nodes of one.
func (o *Official) Enroll(ctx context.Context, authority *Authority, gateways ...*Gateway) (string, error) {
	code, err := authority.Invite(ctx, o.Address)
	if err != nil {
		return "", err
	}
	if len(authority.Officers) == 0 {
		return o.EnrollWith(ctx, code, gateways...)
	}
	// The command waits until two officers have approved.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := o.EnrollWith(ctx, code, gateways...)
		if err != nil {
			cancel() // nobody has to wait for the request
		}
		done <- result{out, err}
	}()
	err = authority.Approve(ctx, o.Address)
	if err != nil {
		cancel()
	}
	r := <-done
	if r.err != nil {
		return r.out, r.err
	}
	return r.out, err
}

// EnrollWith enrolls with an invitation; what failed can be repeated.
func (o *Official) EnrollWith(ctx context.Context, code string, gateways ...*Gateway) (string, error) {
	file := o.Home + ".invitation"
	if err := os.WriteFile(file, []byte(code+"\n"), 0o600); err != nil {
		return "", err
	}
	args := []string{
		"enroll", "@" + file, "--default-management-key",
		"--card", fmt.Sprintf("piv:?serial=%d", o.Card.Serial), "--pin-file", o.stage.pinFile(),
	}
	for _, gateway := range gateways {
		args = append(args, "--gateway", gateway.Address)
	}
	if o.GatewayTCP != "" {
		args = append(args, "--gateway-tcp", o.GatewayTCP)
	}
	return o.Run(ctx, args...)
}

// KillAgent kills the agent that a command has started, with kill -9, and
// reports whether there was one.
func (o *Official) KillAgent() bool {
	killed := false
	for _, pid := range o.agents() {
		killed = syscall.Kill(pid, syscall.SIGKILL) == nil || killed
	}
	return killed
}

// AgentRuns says whether this home has an agent.
func (o *Official) AgentRuns() bool { return len(o.agents()) > 0 }

// AgentPid is the number of this home's agent, 0 if none runs.
func (o *Official) AgentPid() int {
	for _, pid := range o.agents() {
		return pid
	}
	return 0
}

// leave ends the commands in the background, which would start another agent, and then
// the agent; it returns when it is gone.
func (o *Official) leave(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.started {
		if p.Running() {
			p.Stop()
		}
	}
	if !o.AgentRuns() {
		return
	}
	_, err := o.Run(ctx, "agent", "--stop")
	if err == nil {
		_, err = Poll(ctx, "the agent to end", func() (struct{}, bool, error) { return struct{}{}, !o.AgentRuns(), nil })
	}
	if err != nil {
		o.KillAgent()
	}
}

// agents lists the processes that are this home's agent.
func (o *Official) agents() (pids []int) {
	want := strings.Join([]string{o.stage.command("valise"), "agent", "--home", o.Home}, "\x00") + "\x00"
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if line, err := os.ReadFile(f); err != nil || string(line) != want {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Unlock types the PIN.
func (o *Official) Unlock(ctx context.Context) error {
	_, err := o.Run(ctx, "unlock", "--pin-file", o.stage.pinFile())
	return err
}

// Receive follows what arrives: one JSON object a line in messages.jsonl of the
// folder, files below files.
func (o *Official) Receive(dir string) (*Process, error) {
	if err := os.MkdirAll(filepath.Join(dir, "files"), 0o700); err != nil {
		return nil, err
	}
	return o.Start("receive", "receive", "--follow",
		"--append", filepath.Join(dir, "messages.jsonl"), "--dir", filepath.Join(dir, "files"))
}

// ReceiveAll is Receive with this person's own messages, so that the folder tells
// the whole of each conversation.
func (o *Official) ReceiveAll(dir string) (*Process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return o.Start("receive", "receive", "--follow", "--sent", "--append", filepath.Join(dir, "messages.jsonl"))
}
