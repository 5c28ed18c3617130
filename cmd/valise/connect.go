// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"valise/client/local"
)

// agentPatience is how long a started agent may take to answer.
const agentPatience = 10 * time.Second

// agent returns a client of this home's agent, and starts the agent if it does not
// run.
func (e *env) agent(ctx context.Context) (*local.Client, error) {
	c, err := local.New(e.home)
	if err != nil {
		return nil, err
	}
	if err := c.Call(ctx, "/status", nil, nil); !errors.Is(err, local.ErrNoAgent) {
		return c, err
	}
	if _, err := loadProfile(e.home); err != nil {
		return nil, err // there is nothing that an agent could do yet
	}
	if err := makeHome(e.home); err != nil {
		return nil, err // the agent would refuse it, unseen
	}
	if err := e.startAgent(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	for {
		if err = c.Call(ctx, "/status", nil, nil); !errors.Is(err, local.ErrNoAgent) {
			return c, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, &hintError{text: "the agent does not start", hint: "see " + filepath.Join(e.home, logFile)}
		}
	}
}

// startAgent runs this program as the agent, apart from this terminal. Two commands may
// do it at once: the home's lock lets one of the agents live.
func (e *env) startAgent() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(e.home, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "agent", "--home", e.home)
	cmd.Dir, cmd.Stdout, cmd.Stderr = e.home, log, log
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// locked says whether an error means that the agent is locked or gone: then a command
// that follows events waits.
func locked(err error) bool {
	var coded local.Coded
	var remote *local.Error
	switch {
	case errors.Is(err, local.ErrNoAgent):
		return true
	case errors.As(err, &remote):
		return remote.Code == codeLocked
	}
	return errors.As(err, &coded) && coded.ErrorCode() == codeLocked
}
