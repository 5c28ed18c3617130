// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"

	"valise/internal/store"
)

// Database says what Inspect found, and returns the server's clock. init is the command
// that makes a database that is missing; "" where the daemon makes it when it starts.
func Database(r *Report, facts *store.Facts, err error, init string) Reference {
	switch {
	case errors.Is(err, store.ErrMissing) && init == "":
		r.Warn("database", "database_missing", "nothing, before the first start; afterwards: find out who took it away, and restore a backup", "there is none yet; the daemon makes it when it starts")
		return Reference{}
	case errors.Is(err, store.ErrMissing):
		r.Fail("database", "database_missing", "before the first start: run "+init+"; afterwards: restore a backup", "there is none")
		return Reference{}
	case errors.Is(err, store.ErrForeign):
		r.Fail("database", "database_foreign", "name another database in the configuration", "%v", err)
		return Reference{}
	case err != nil:
		r.Fail("database", "database_unreachable", "start the server, or correct the connection string; psql with the same string says more", "%v", err)
		return Reference{}
	}
	r.OK("database", "%v %s answers", facts.Dialect, facts.Server)
	judgeSchema(r, facts)
	if facts.Syncs {
		r.OK("database", "it syncs what it acknowledges (%s)", facts.How)
	} else {
		r.Fail("database", "database_no_sync", "switch fsync on in postgresql.conf: without it, what was acknowledged is lost with the power", "it does not sync what it acknowledges (%s)", facts.How)
	}
	if facts.Encoding == "UTF8" {
		r.OK("database", "its encoding is UTF8")
	} else {
		r.Fail("database", "database_encoding", "make a database with ENCODING 'UTF8' TEMPLATE template0, and move the tables there", "its encoding is %s", facts.Encoding)
	}
	if facts.Dialect != store.PostgreSQL {
		return Reference{}
	}
	judgeServer(r, facts)
	return Reference{Name: "the database server's clock", Said: facts.Said, Before: facts.Before, After: facts.After}
}

func judgeSchema(r *Report, facts *store.Facts) {
	switch {
	case facts.Schema > facts.Known && facts.Oldest > 0 && facts.Oldest <= facts.Known:
		r.Warn("database", "schema_ahead", "finish the upgrade: install that version here too", "its schema is %d, which a newer version made and this one (%d) can use still", facts.Schema, facts.Known)
	case facts.Schema > facts.Known:
		r.Fail("database", "schema_newer", "install the version that migrated it, or restore a backup that was made before", "its schema is %d, and this program knows %d", facts.Schema, facts.Known)
	case facts.Schema < facts.Known:
		r.Warn("database", "schema_older", "make a backup; the next start brings it up to date", "its schema is %d, and this program's %d", facts.Schema, facts.Known)
	default:
		r.OK("database", "its schema is %d, as this program's", facts.Schema)
	}
}

// judgeServer looks at what only a server can lack.
func judgeServer(r *Report, facts *store.Facts) {
	if facts.ReadOnly {
		r.Fail("database", "database_read_only", "name the primary, or all servers with target_session_attrs=read-write", "the server takes no writes: it is a standby, or was set so")
	}
	others := facts.Used - facts.Ours
	switch left := facts.Connections - others; {
	case left < 2:
		r.Fail("database", "database_connections", "raise max_connections, or find out who has so many open", "%d of %d connections are other programs'", others, facts.Connections)
	case left < leastConnections:
		r.Warn("database", "database_connections", "raise max_connections: a daemon takes up to that many", "%d of %d connections are other programs', and this daemon takes up to %d", others, facts.Connections, leastConnections)
	default:
		r.OK("database", "%d of its %d connections are other programs', %d are ours", others, facts.Connections, facts.Ours)
	}
}
