// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"text/tabwriter"
	"time"

	"valise/internal/daemon"
	"valise/internal/store/relay"
)

// A nodeError says why this gateway cannot be one of several, and what to do.
type nodeError struct {
	err  error
	hint string
}

func (e *nodeError) Error() string { return e.err.Error() }
func (e *nodeError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *nodeError) Hint() string { return e.hint }

// hinted adds to an error of opening the database what the operator can do.
func hinted(err error, node string) error {
	switch {
	case errors.Is(err, relay.ErrNameInUse):
		return &nodeError{err, fmt.Sprintf("stop the other gateway that is called %q, or give this one another name under node; valise-gatewayd nodes lists them", node)}
	case errors.Is(err, relay.ErrAlone):
		return &nodeError{err, "either all gateways on a database have a name under node, or there is one gateway: stop it, add node to its configuration, start it again"}
	case errors.Is(err, relay.ErrInUse) && node == "":
		return &nodeError{err, "another gateway uses this database: stop it; or, if several are to use it, give each of them a name under node"}
	}
	return err
}

// version is what the list of nodes says of this program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return info.Main.Version
}

// shared opens the database that nodes share, to look on.
func (c *Config) shared(ctx context.Context) (*relay.Shared, error) {
	dsn, err := c.postgreSQL()
	if err != nil {
		return nil, err
	}
	if dsn == "" {
		return nil, errors.New("the database is a file in the data directory, which one gateway has to itself: nodes share one in a PostgreSQL server (database, node)")
	}
	return relay.OpenShared(ctx, relay.SharedConfig{Database: dsn, Quota: c.quota()})
}

type nodesCommand struct {
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file of one of them."`
}

// Run lists the gateways that share the database.
func (c *nodesCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	s, err := cfg.shared(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	nodes, err := (&relay.Node{Shared: s}).Nodes(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tSINCE\tLAST SIGN OF LIFE\tVERSION")
	for _, n := range nodes {
		state := "stopped"
		if n.Alive {
			state = "running"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, state, n.Started.UTC().Format(time.RFC3339), n.Seen.UTC().Format(time.RFC3339), n.Version)
	}
	return w.Flush()
}

type transportKeysCommand struct {
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file of one of the nodes."`
	Rotate bool   `help:"Exchange them; each node uses the new ones when it is started the next time."`
}

// Run shows since when the nodes share their transport keys, or exchanges them.
func (c *transportKeysCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(c.Config)
	if err == nil {
		err = cfg.checkServe()
	}
	if err != nil {
		return err
	}
	s, err := cfg.shared(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	n := &relay.Node{Shared: s}
	if !c.Rotate {
		keys, err := n.TransportKeys(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("version %d, made %s\n", keys.Version, keys.Made.UTC().Format(time.RFC3339))
		return nil
	}
	audit, err := daemon.OpenAudit(cfg.Audit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audit.Close()) }()
	keys, err := n.RotateTransportKeys(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("version %d: restart the nodes one after the other; until all have it, devices of one that was killed take a little longer to notice\n", keys.Version)
	return audit.Event(ctx, "transport keys exchanged")
}
