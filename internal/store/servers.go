// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// How soon another server is looked for when the present one does not answer. A server
// whose machine stands still refuses nothing: without this, a statement would wait there
// for deadAfter, or for ever, while another server has long taken its place.
const (
	stalledAfter = 2 * time.Second // as long as few statements take; looking costs a connection to each other server
	lookEvery    = time.Second
	// severalTimeout is connectTimeout where a connection string names several servers.
	severalTimeout = 3 * time.Second
)

// servers are those of one connection string, and the connections of a DB to them. Of
// several, one takes writes, and which one changes: then a standby goes on with a timeline of its
// own (PostgreSQL's documentation, Section 26.3.5). Whoever was on a higher one never
// goes back to a lower one: that server was left behind, and may not know it yet.
type servers struct {
	cancelled atomic.Int64 // commits that were reported although no standby had confirmed them

	check func(*connecting, context.Context, *pgconn.PgConn) error // what a new connection must stand

	mu       sync.Mutex
	links    map[*link]struct{} // guarded by mu; those that are open
	first    string             // guarded by mu; the server that took writes last
	timeline uint32             // guarded by mu; the highest that was seen
}

// A connecting is one attempt to connect.
type connecting struct {
	*servers
	names map[string]string // host by address; complete before the first is dialed
	done  atomic.Bool       // the connection is in use
}

// next prepares the next connection of a pool.
func (s *servers) next(_ context.Context, config *pgx.ConnConfig) error {
	s.prepare(config, s.check)
	return nil
}

// prepare makes a configuration one for the next connection only. check is what a server that
// takes writes must stand before the connection is used.
func (s *servers) prepare(config *pgx.ConnConfig, check func(*connecting, context.Context, *pgconn.PgConn) error) {
	c := &connecting{servers: s, names: map[string]string{}}
	lookup := config.LookupFunc
	config.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		found, err := lookup(ctx, host)
		for _, address := range found {
			c.names[address] = host
		}
		return found, err
	}
	config.DialFunc = c.dial
	config.OnNotice = s.notice
	writable := config.ValidateConnect
	config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := writable(ctx, conn); err != nil {
			return err
		}
		if err := check(c, ctx, conn); err != nil {
			return err // and the next server is tried
		}
		c.done.Store(true)
		return nil
	}
	s.order(&config.Config)
}

// serverName is how a server stands in the connection string.
func serverName(host string, port uint16) string {
	_, address := pgconn.NetworkAddress(host, port)
	return address
}

// order puts the server that took writes last before the others: a connection to one that is
// gone may take all of its time to fail.
func (s *servers) order(config *pgconn.Config) {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	all := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	slices.SortStableFunc(all, func(a, b *pgconn.FallbackConfig) int {
		switch x, y := serverName(a.Host, a.Port) == first, serverName(b.Host, b.Port) == first; {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	config.Host, config.Port, config.TLSConfig = all[0].Host, all[0].Port, all[0].TLSConfig
	config.Fallbacks = all[1:]
}

// dial connects to a server. The driver also calls it to have the server cancel what a
// connection is about, whenever it gives that up: a commit that waits for a standby would be
// done then, for all to see, without being anywhere else. So it is refused.
func (c *connecting) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if c.done.Load() {
		return nil, errNoCancel
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: conn, servers: c.servers, server: c.server(network, address)}
	c.mu.Lock()
	c.links[l] = struct{}{}
	c.mu.Unlock()
	return l, nil
}

var errNoCancel = errors.New("store: a statement of PostgreSQL is left alone, never cancelled")

// server says by which name of the connection string an address was found.
func (c *connecting) server(network, address string) string {
	if network == "unix" {
		return address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if name, ok := c.names[host]; ok {
		host = name
	} else if name, ok := c.names[address]; ok { // with its port
		host = name
	}
	return net.JoinHostPort(host, port)
}

func (s *servers) forget(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
}

// note takes down the timeline of a server that takes writes, and ends the connections to
// those that it has left behind: whoever waits there for an answer waits in vain.
func (s *servers) note(l *link, timeline uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if timeline < s.timeline {
		return fmt.Errorf("%w: %s is on timeline %d, and another server has gone on with %d", ErrLeftBehind, l.server, timeline, s.timeline)
	}
	l.timeline, s.timeline, s.first = timeline, timeline, l.server
	for other := range s.links {
		if other.timeline != 0 && other.timeline < timeline {
			other.end()
		}
	}
	return nil
}

// endAll ends all connections.
func (s *servers) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		l.end()
	}
}

// usable has the pool throw away what was ended.
func usable(_ context.Context, conn *pgx.Conn) error {
	if linkOf(conn.PgConn().Conn()).ended.Load() {
		return driver.ErrBadConn
	}
	return nil
}

// stalled reports whether somebody waits for a server.
func (s *servers) stalled(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		if l.timeline != 0 && l.waits(since) {
			return true
		}
	}
	return false
}

// watch looks for another server while the present one does not answer, until ctx ends.
func (s *servers) watch(ctx context.Context, config *pgx.ConnConfig) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.stalled(time.Now().Add(-stalledAfter)) {
				s.look(ctx, config)
			}
		}
	}
}

// look asks all other servers at once whether they take writes. One that does is noted as
// soon as it has answered.
func (s *servers) look(ctx context.Context, config *pgx.ConnConfig) {
	ctx, cancel := context.WithTimeout(ctx, severalTimeout)
	defer cancel()
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, server := range distinct(&config.Config) {
		if serverName(server.Host, server.Port) == first {
			continue
		}
		all.Go(func() {
			one := config.Copy()
			one.Host, one.Port, one.TLSConfig, one.Fallbacks = server.Host, server.Port, server.TLSConfig, nil
			s.prepare(one, func(c *connecting, ctx context.Context, conn *pgconn.PgConn) error {
				_, err := c.learn(ctx, conn)
				return err
			})
			if conn, err := pgx.ConnectConfig(ctx, one); err == nil {
				_ = conn.Close(ctx)
			}
		})
	}
	all.Wait()
}

// distinct lists each server once.
func distinct(config *pgconn.Config) (list []*pgconn.FallbackConfig) {
	seen := map[string]bool{}
	for _, server := range append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...) {
		if name := serverName(server.Host, server.Port); !seen[name] {
			seen[name] = true
			list = append(list, server)
		}
	}
	return list
}
