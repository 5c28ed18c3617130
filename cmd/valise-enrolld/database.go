// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"valise/internal/daemon"
	"valise/internal/store"
	"valise/internal/store/authority"
)

// checkDatabase looks at what the configuration says about the database.
func (c *Config) checkDatabase() error {
	switch {
	case c.Database != "" && c.DatabaseSource != "":
		return errors.New("database and database-source are both set: one says where the database is")
	case !store.IsPostgreSQL(c.Database):
		return nil
	}
	password, err := store.CheckPostgreSQL(c.Database)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if password {
		return errors.New("database: the connection string holds a password: put it into a file that only its owner can read, and name that in database-source")
	}
	return nil
}

// resolveDatabase makes a file's path absolute.
func (c *Config) resolveDatabase(dir string) {
	if c.Database != "" && !store.IsPostgreSQL(c.Database) && !filepath.IsAbs(c.Database) {
		c.Database = filepath.Join(dir, c.Database)
	}
}

// database returns the path of the SQLite file, or the connection string.
func (c *Config) database() (string, error) {
	switch {
	case c.DatabaseSource != "":
		dsn, err := daemon.ReadPrivate(c.DatabaseSource)
		if err != nil {
			return "", fmt.Errorf("database-source: %w", err)
		}
		if !store.IsPostgreSQL(dsn) {
			return "", fmt.Errorf("database-source: %s does not hold a PostgreSQL connection string", c.DatabaseSource)
		}
		_, err = store.CheckPostgreSQL(dsn)
		return dsn, err
	case c.Database != "":
		return c.Database, nil
	}
	return c.path(databaseFile), nil
}

// openDatabase opens the database that init or restore has made.
func (c *Config) openDatabase(ctx context.Context) (*authority.Store, error) {
	name, err := c.database()
	if err != nil {
		return nil, err
	}
	s, err := authority.OpenExisting(ctx, name)
	if errors.Is(err, store.ErrMissing) {
		err = fmt.Errorf("the database is missing: restore %s, or check data and database in the configuration: %w", databaseFile, err)
	}
	return s, err
}

// createDatabase makes the database, and refuses where there is one.
func (c *Config) createDatabase(ctx context.Context) (*authority.Store, error) {
	name, err := c.database()
	if err != nil {
		return nil, err
	}
	return authority.Create(ctx, name)
}

// vacantDatabase fails if there is a database already.
func (c *Config) vacantDatabase(ctx context.Context) error {
	name, err := c.database()
	if err != nil {
		return err
	}
	return authority.Vacant(ctx, name)
}
