// SPDX-License-Identifier: Apache-2.0

// Package patroni runs a PostgreSQL that fails over by itself, as a ministry would: three
// servers under Patroni, which agree through etcd on who takes writes, on this machine's
// loopback and at ports of their own. For tests and the soak only.
//
//	c, err := patroni.New(patroni.Config{Logs: dir})
//	defer c.Close()
//	err = c.Settled(ctx) // a primary, and a standby that has all that it has acknowledged
//	conn, err := pgx.Connect(ctx, c.DSN("relay")) // names all three servers
//	m, err := c.Primary(ctx)
//	err = m.Kill() // kill -9 of Patroni and PostgreSQL: another one takes over
//
// Patroni writes the servers' configuration and starts and ends them; the configuration that it gets
// here (config.go) is the one that docs/operate.md shows, with other addresses.
// Everything runs as a user without rights. Whatever of it is left when this process ends
// without Close is ended by the next one's caller only: use it where processes end with a
// namespace, as the soak does.
package patroni
