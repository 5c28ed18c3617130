// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"valise/enroll/book"
	"valise/enroll/feed"
	"valise/internal/daemon"
)

type exportCmd struct {
	common
	Out  string `required:"" placeholder:"FILE" help:"Where to write it; the file must not exist."`
	From int64  `default:"0" placeholder:"LEAF" help:"The first leaf: gateways that had a file before need only what came since. Default: all of it."`
}

// carrying opens what files are written from and taken into: no token.
func carrying(ctx context.Context, path string) (*office, *feed.Feed, error) {
	o, err := openDesk(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	o.book, err = book.Open(ctx, book.Config{Store: o.store, Root: o.chain[1], Mark: o.cfg.path(markFile)})
	if err != nil {
		return nil, nil, errors.Join(err, o.close())
	}
	f, err := feed.New(feed.Config{
		Store: o.store, Book: o.book, Root: o.chain[1], Domain: o.cfg.Domain, Gateways: o.cfg.Bulletin.RestoreGateways,
		Event: o.audit.Event, Log: daemon.NewLog(os.Stderr, o.cfg.LogLevel),
	})
	if err != nil {
		return nil, nil, errors.Join(err, o.close())
	}
	return o, f, nil
}

// Run writes the record with its newest manifest, checkpoint and bulletin, while the
// daemon runs.
func (cmd *exportCmd) Run(ctx context.Context) (err error) {
	if cmd.From < 0 {
		return errors.New("--from: leaves are counted from 0")
	}
	o, f, err := carrying(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	var told feed.Exported
	err = daemon.WriteNew(cmd.Out, func(w io.Writer) (err error) {
		told, err = f.Export(ctx, w, cmd.From)
		return err
	}, func(io.ReadSeeker) error { return nil })
	if err != nil {
		return err
	}
	fmt.Printf("%s: leaves %d to %d, checkpoint of %d, bulletin %d; on the gateway: valise-gatewayd import record FILE\nthe next time: --from %d\n",
		cmd.Out, cmd.From, told.Leaves, told.Checkpoint, told.Bulletin, told.Checkpoint)
	return o.audit.Event(ctx, "record exported", slog.Int64("leaves", told.Leaves), slog.Uint64("bulletin", told.Bulletin))
}

type importCmd struct {
	common
	Gateway string   `required:"" placeholder:"NAME" help:"Which gateway the files are of."`
	Files   []string `arg:"" name:"file" type:"existingfile" help:"What valise-gatewayd export wrote."`
}

// Run takes back what a gateway knows and this authority, restored from a backup, lacks.
func (cmd *importCmd) Run(ctx context.Context) (err error) {
	o, f, err := carrying(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	for _, name := range cmd.Files {
		taken, err := takeBack(ctx, f, cmd.Gateway, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Printf("%s: %d leaves were missing here\n", name, taken)
	}
	return nil
}

func takeBack(ctx context.Context, f *feed.Feed, gateway, name string) (int64, error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return f.TakeBack(ctx, gateway, file)
}
