// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// ErrNoAgent: nobody listens for this home.
var ErrNoAgent = errors.New("the agent is not running")

// A Client asks one home's agent.
type Client struct {
	http *http.Client
	path string
}

// New returns a Client of the agent of a home. It connects at each call.
func New(home string) (*Client, error) {
	path, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoAgent, err)
		}
		if err := checkPeer(c); err != nil {
			return nil, &strangerError{errors.Join(err, c.Close())}
		}
		return c, nil
	}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}, nil
}

// Call asks for one object. req may be nil.
func (c *Client) Call(ctx context.Context, path string, req, resp any) error {
	r, err := c.post(ctx, path, req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	data, err := io.ReadAll(io.LimitReader(r.Body, maxLine))
	if err != nil {
		return brokeOff(ctx, err)
	}
	if resp == nil {
		return nil
	}
	return json.Unmarshal(data, resp)
}

// Stream hands each line to f until the agent ends them, or f returns an error.
func (c *Client) Stream(ctx context.Context, path string, req any, f func(line json.RawMessage) error) error {
	r, err := c.post(ctx, path, req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		if err := asError(lines.Bytes()); err != nil {
			return err
		}
		if err := f(bytes.Clone(lines.Bytes())); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return brokeOff(ctx, err)
	}
	return context.Cause(ctx)
}

// brokeOff says what a broken connection means: an agent that was killed is not
// running, whenever in the exchange that was noticed.
func brokeOff(ctx context.Context, err error) error {
	var stranger *strangerError
	var asked *url.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrNoAgent) || errors.As(err, &stranger) || errors.Is(err, bufio.ErrTooLong):
		return err
	case errors.As(err, &asked):
		err = asked.Err
	}
	return fmt.Errorf("%w: it broke off: %w", ErrNoAgent, err)
}

// A strangerError says that somebody else listens on the socket.
type strangerError struct{ err error }

func (e *strangerError) Error() string { return e.err.Error() }
func (e *strangerError) Unwrap() error { return e.err }

func (c *Client) post(ctx context.Context, path string, req any) (*http.Response, error) {
	if req == nil {
		req = struct{}{}
	}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, brokeOff(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if err != nil {
		return nil, brokeOff(ctx, err)
	}
	if err := asError(data); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("the agent answered %s", resp.Status)
}

// asError recognizes an Error by its member "error".
func asError(data []byte) error {
	e := new(Error)
	if json.Unmarshal(data, e) == nil && e.Text != "" {
		return e
	}
	return nil
}
