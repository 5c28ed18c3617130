// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"

	"modernc.org/sqlite"
)

// maxKept bounds the compiled statements of one connection: several times what the
// largest of our programs uses, some 4 KB each. A program that made up texts without
// end would compile them anew each time, as without any of this.
const maxKept = 256

// openKeeping opens a pool of SQLite connections that keep what they have compiled. To
// parse and plan a statement takes SQLite longer than to run one that looks up a row.
func openKeeping(dsn string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(keeping{c}), nil
}

// keeping opens keepers.
type keeping struct{ driver.Connector }

func (k keeping) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := k.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	inner, ok := c.(sqliteConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("store: SQLite's driver gives a %T, which lacks methods that it had", c)
	}
	return &keeper{sqliteConn: inner, kept: map[string]driver.Stmt{}}, nil
}

// sqliteConn is what SQLite's driver gives.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// A keeper is a connection that keeps compiled statements. Like every driver.Conn it
// is used by one goroutine at a time. A statement that is in use is not among the kept
// ones: the same text asked for meanwhile is compiled once more.
type keeper struct {
	sqliteConn
	kept map[string]driver.Stmt
}

// keepable says which texts are kept: those that transactions consist of. PRAGMA, BEGIN
// and changes of the schema are rare, and must not be held compiled.
func keepable(query string) bool {
	verb, _, _ := strings.Cut(strings.TrimLeft(query, " \t\n"), " ")
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
		return !strings.Contains(query, ";")
	}
	return false
}

// take compiles a statement, or finds it compiled; whoever takes one puts it back.
func (k *keeper) take(ctx context.Context, query string) (driver.Stmt, error) {
	if s, ok := k.kept[query]; ok {
		delete(k.kept, query)
		return s, nil
	}
	return k.PrepareContext(ctx, query)
}

func (k *keeper) put(query string, s driver.Stmt) error {
	if k.kept == nil || k.kept[query] != nil || len(k.kept) >= maxKept {
		return s.Close()
	}
	k.kept[query] = s
	return nil
}

// ExecContext fulfils driver.ExecerContext.
func (k *keeper) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !keepable(query) {
		return k.sqliteConn.ExecContext(ctx, query, args)
	}
	s, err := k.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.(driver.StmtExecContext).ExecContext(ctx, args)
	if putErr := k.put(query, s); err == nil && putErr != nil {
		return nil, putErr
	}
	return result, err
}

// QueryContext fulfils driver.QueryerContext.
func (k *keeper) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !keepable(query) {
		return k.sqliteConn.QueryContext(ctx, query, args)
	}
	s, err := k.take(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		_ = k.put(query, s)
		return nil, err
	}
	return &keptRows{Rows: rows, done: func() error { return k.put(query, s) }}, nil
}

// Close fulfils driver.Conn. SQLite closes a file only when no statement is left.
func (k *keeper) Close() error {
	for _, s := range k.kept {
		_ = s.Close()
	}
	k.kept = nil
	return k.sqliteConn.Close()
}

// keptRows give their statement back when they are closed.
type keptRows struct {
	driver.Rows
	done func() error
}

func (r *keptRows) Close() error {
	err := r.Rows.Close()
	if done := r.done; done != nil {
		r.done = nil
		if putErr := done(); err == nil {
			err = putErr
		}
	}
	return err
}
