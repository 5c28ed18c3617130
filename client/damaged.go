// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"

	"valise/client/vault"
)

// A damagedGroup says that what the vault has of one group is of no use: it opens, and is
// no state of a group. What was altered is another matter (vault.ErrAltered): then nothing
// of the vault is to be trusted, and the engine stops.
type damagedGroup struct {
	id  []byte
	err error
}

func (d *damagedGroup) Error() string {
	return fmt.Sprintf("the state of a group is damaged: %v", d.err)
}
func (d *damagedGroup) Unwrap() error { return d.err }

// loadFailed tells why a group's state was not loaded.
func loadFailed(id []byte, err error) error {
	if errors.Is(err, vault.ErrAltered) || errors.Is(err, vault.ErrLocked) || errors.Is(err, errVault) {
		return fmt.Errorf("load a group: %w", err)
	}
	return &damagedGroup{id, err}
}

// errVault wraps what the vault answers instead of a group's state.
var errVault = errors.New("the vault does not give it")

// mended takes the loss of one group's state upon itself: its conversation is resynced,
// and all others go on. It says whether there was such a loss.
func (e *Engine) mended(err error) (bool, error) {
	var d *damagedGroup
	if !errors.As(err, &d) {
		return false, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	conv := e.conversations[e.byGroup[string(d.id)]]
	if conv == nil || conv.State == stateResync {
		return false, nil
	}
	return true, e.lose(conv, d.Error())
}
