// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"net"
	"strings"
	"time"
)

// deadAfter is how long a PostgreSQL server may be out of reach before a connection to it,
// with the transaction on it, is given up. A network that swallows packets says nothing. The
// server is asked to do the same, or the lock that a lost connection held would stay for hours.
const deadAfter = 30 * time.Second

// serverPatience is that for the server's end; sockets of the same machine ignore it.
var serverPatience = map[string]string{
	"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3", "tcp_user_timeout": "30000",
}

// dial connects to a server.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter / 2, Interval: deadAfter / 6, Count: 3}}
	if strings.HasPrefix(network, "tcp") {
		d.Control = giveUp
	}
	return d.DialContext(ctx, network, address)
}
