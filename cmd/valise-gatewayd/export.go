// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"valise/gateway/feed"
	"valise/internal/daemon"
)

type exportCommand struct {
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
	Out    string `required:"" placeholder:"FILE" help:"Where to write it; the file must not exist."`
}

// Run writes what the gateway knows of the authority's record, while it runs or not.
func (c *exportCommand) Run(ctx context.Context) error {
	cfg, err := loadConfig(c.Config)
	if err == nil {
		err = cfg.checkServe()
	}
	if err != nil {
		return err
	}
	open, err := cfg.feedConfig()
	if err != nil {
		return err
	}
	open.Path = filepath.Join(cfg.Data, "record.db")
	f, err := feed.Open(ctx, open)
	if err != nil {
		return err
	}
	var leaves int64
	err = daemon.WriteNew(c.Out, func(w io.Writer) (err error) {
		leaves, err = f.Export(ctx, w)
		return err
	}, func(io.ReadSeeker) error { return nil })
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Printf("%s: %d leaves; on the authority: valise-enrolld import --gateway %s FILE\n", c.Out, leaves, cfg.Name)
	return nil
}
