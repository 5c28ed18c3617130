// SPDX-License-Identifier: Apache-2.0

// Package postgres runs a PostgreSQL server of our own: in a folder of its own, as a user
// without rights, at a unix socket and nowhere else. It syncs what it writes, as one in
// earnest does, and can be ended in three ways.
//
//	bin, err := postgres.Programs()
//	s, err := postgres.New(postgres.Config{Programs: bin})
//	defer s.Close() // and its folder is gone
//	err = s.Exec(ctx, "CREATE DATABASE relay TEMPLATE template0")
//	conn, err := pgx.Connect(ctx, s.DSN("relay"))
//	err = s.Kill()  // kill -9 of all its processes; Start recovers it
//
// The server ends with the process that started it, however that comes. For tests and
// the soak only: whoever can open the socket is its owner.
package postgres
