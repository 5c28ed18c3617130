// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"valise/enroll"
	"valise/identity"
	"valise/internal/store/authority"
)

type rosterCmd struct {
	Import rosterImportCmd `cmd:"" help:"Add or change people from CSV: address,name,unit,clearance. Who is not in the file stays."`
	List   rosterListCmd   `cmd:"" help:"List the people."`
	Remove rosterRemoveCmd `cmd:"" help:"Take people off the roster: nothing more is issued for them."`
}

type rosterImportCmd struct {
	common
	File string `arg:"" type:"existingfile" help:"CSV file."`
}

func (cmd *rosterImportCmd) Run(ctx context.Context) (err error) {
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	if err := o.lone(ctx, "valise officer roster import"); err != nil {
		return err
	}
	f, err := os.Open(cmd.File)
	if err != nil {
		return err
	}
	defer f.Close()
	people, err := enroll.ReadRoster(f, o.cfg.Domain, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.File, err)
	}
	changed, err := enroll.ImportRoster(ctx, o.store, people)
	if err != nil {
		return err
	}
	fmt.Printf("%d people read, %d new or changed\n", len(people), changed)
	return o.audit.Event(ctx, "roster imported", slog.Int("people", len(people)), slog.Int("changed", changed))
}

type rosterListCmd struct{ common }

func (cmd *rosterListCmd) Run(ctx context.Context) (err error) {
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	var people []authority.Person
	err = o.store.View(ctx, func(tx *authority.Tx) (err error) { people, err = tx.People(); return err })
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tNAME\tUNIT\tCLEARANCE")
	for _, p := range people {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Address, p.Name, p.Unit, enroll.ClearanceText(p.Clearance))
	}
	return w.Flush()
}

type rosterRemoveCmd struct {
	common
	Addresses []string `arg:"" name:"address" help:"Addresses to remove."`
}

func (cmd *rosterRemoveCmd) Run(ctx context.Context) (err error) {
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	if err := o.lone(ctx, "valise officer roster remove"); err != nil {
		return err
	}
	for _, text := range cmd.Addresses {
		address, err := identity.CanonicalAddress(text)
		if err != nil {
			return err
		}
		err = o.store.Update(ctx, func(tx *authority.Tx) error { return tx.RemovePerson(address) })
		if errors.Is(err, authority.ErrNotFound) {
			return fmt.Errorf("%s is not on the roster", address)
		}
		if err != nil {
			return err
		}
		if err := o.audit.Event(ctx, "removed from roster", slog.String("address", address.String())); err != nil {
			return err
		}
	}
	return nil
}

// lone refuses a command that officers do at their desk, where there are any: what it
// would write into the database counts for nothing there.
func (o *office) lone(ctx context.Context, instead string) error {
	led, err := enroll.LedByOfficers(ctx, o.store, o.chain[1])
	if err == nil && led {
		err = fmt.Errorf("%w: %s", enroll.ErrOfficers, instead)
	}
	return err
}
