// SPDX-License-Identifier: Apache-2.0

// Package local is the wire between the agent, which owns a person's card, vault and
// connection, and the commands that this person runs: HTTP with JSON bodies over a
// unix socket that nobody else can open.
//
// The agent:
//
//	ln, err := local.Listen(home)
//	mux := http.NewServeMux()
//	local.Handle(mux, "/status", func(ctx context.Context, _ *struct{}) (*Status, error) { … })
//	local.Stream(mux, "/events", func(ctx context.Context, q *Query, send func(any) error) error { … })
//	err = local.Serve(ctx, ln, mux)
//
// A command:
//
//	c := local.New(home)
//	err := c.Call(ctx, "/status", nil, &status)
//	err = c.Stream(ctx, "/events", query, func(line json.RawMessage) error { … })
//
// The socket has mode 0600 in a folder of mode 0700, and the kernel is asked who is at
// the other end (SO_PEERCRED); another user, root included, is refused. Every route is
// a POST with Content-Type application/json, decoded strictly: what is not known is
// refused.
//
// An [Error] carries a hint and a code to the other side. Never add a route that signs
// what it is given.
package local
