// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

//go:embed example.toml
var exampleConfig []byte

type initCommand struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"Configuration file to write."`
}

// Run writes the example configuration under a new name.
func (c *initCommand) Run() error {
	f, err := os.OpenFile(c.Config, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: edit it, or choose another name", c.Config)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(exampleConfig)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Printf("wrote %s: edit it, then run: valise-gatewayd csr --config %s\n", c.Config, c.Config)
	return nil
}
