// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// An Official is a person with a device: a card in a reader and a home for the
// agent's state.
type Official struct {
	Name    string
	Address string
	Home    string
	Card    *Card

	stage *Stage
}

// NewOfficial prepares a person; nothing is enrolled yet.
func (s *Stage) NewOfficial(name, address string, card *Card) *Official {
	o := &Official{Name: name, Address: address, Home: filepath.Join(s.Dir, name), Card: card, stage: s}
	s.officials = append(s.officials, o)
	return o
}

// Run runs one command of valise as this person.
func (o *Official) Run(ctx context.Context, args ...string) (string, error) {
	return Output(ctx, o.Card.Reader.Env, o.stage.command("valise"), append([]string{"--home", o.Home}, args...)...)
}

// Start runs a command of valise in the background.
func (o *Official) Start(name string, args ...string) (*Process, error) {
	return o.stage.ps.start(o.Name+"-"+name, o.Card.Reader.Env, o.stage.command("valise"), append([]string{"--home", o.Home}, args...)...)
}

// Enroll makes keys in the card and gets a certificate with an invitation.
func (o *Official) Enroll(ctx context.Context, authority *Authority, gateway *Gateway) (string, error) {
	code, err := authority.Invite(ctx, o.Address)
	if err != nil {
		return "", err
	}
	file := o.Home + ".invitation"
	if err := os.WriteFile(file, []byte(code+"\n"), 0o600); err != nil {
		return "", err
	}
	return o.Run(ctx, "enroll", "@"+file, "--gateway", gateway.Address, "--default-management-key",
		"--card", fmt.Sprintf("piv:?serial=%d", o.Card.Serial), "--pin-file", o.stage.pinFile())
}

// StartAgent runs the agent in the foreground of a process of its own, so that
// it can be killed.
func (o *Official) StartAgent(ctx context.Context) (*Process, error) {
	return o.Start("agent", "agent")
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
