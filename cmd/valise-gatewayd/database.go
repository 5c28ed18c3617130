// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"valise/gateway/mailbox"
	"valise/internal/daemon"
	"valise/internal/store"
	"valise/internal/store/relay"
)

// checkDatabase looks at what the configuration says about the database.
func (c *Config) checkDatabase() error {
	switch {
	case c.Node != "" && c.Database == "" && c.DatabaseSource == "":
		return fmt.Errorf(`configuration: node %q: the nodes of a gateway share a PostgreSQL database, so "database" or "database_source" must be set too`, c.Node)
	case c.Node != "" && !c.Files.Shared && c.Files.S3Endpoint == "":
		return fmt.Errorf("configuration: node %q: files that come to one node are fetched from any: set folder and shared under [files], or an object store", c.Node)
	case c.Node != "" && !nodeName.MatchString(c.Node):
		return fmt.Errorf("configuration: node %q: want letters a to z, digits, dots and hyphens, at most 64", c.Node)
	case c.Database != "" && c.DatabaseSource != "":
		return errors.New(`configuration: "database" and "database_source" are both set: one says where the database is`)
	case c.Database == "":
		return nil
	case !store.IsPostgreSQL(c.Database):
		return errors.New(`configuration: "database" is no PostgreSQL connection string; without one the database is a file in the data directory`)
	}
	password, err := store.CheckPostgreSQL(c.Database)
	if err != nil {
		return fmt.Errorf("configuration: database: %w", err)
	}
	if password {
		return errors.New(`configuration: "database" holds a password: put the string into a file that only its owner can read, and name that in "database_source"`)
	}
	return nil
}

// postgreSQL is the connection string, "" for a database of the gateway's own.
func (c *Config) postgreSQL() (string, error) {
	if c.DatabaseSource == "" {
		return c.Database, nil
	}
	dsn, err := daemon.ReadPrivate(c.DatabaseSource)
	if err != nil {
		return "", fmt.Errorf("database_source: %w", err)
	}
	if !store.IsPostgreSQL(dsn) {
		return "", fmt.Errorf("database_source: %s does not hold a PostgreSQL connection string", c.DatabaseSource)
	}
	_, err = store.CheckPostgreSQL(dsn)
	return dsn, err
}

// nodeName is what a node may be called.
var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$`)

// openDatabase opens the database that the configuration names.
func (c *Config) openDatabase(ctx context.Context) (mailbox.Store, error) {
	dsn, err := c.postgreSQL()
	if err != nil {
		return nil, err
	}
	if c.Node != "" {
		s, err := relay.OpenNode(ctx, relay.SharedConfig{Database: dsn, Quota: c.quota(), Node: c.Node, Version: version()})
		if err != nil {
			return nil, hinted(err, c.Node)
		}
		return s, nil
	}
	if dsn != "" {
		s, err := relay.OpenShared(ctx, relay.SharedConfig{Database: dsn, Quota: c.quota(), Alone: true})
		if err != nil {
			return nil, hinted(err, "")
		}
		return s, nil
	}
	s, err := relay.OpenJournaled(ctx, relay.Config{Path: filepath.Join(c.Data, "relay.db"), Quota: c.quota(), Segment: c.Limits.JournalBytes})
	if err != nil {
		return nil, err
	}
	return s, nil
}
