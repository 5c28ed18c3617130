// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"valise/internal/daemon"
)

// A Port is an address that the daemon listens at.
type Port struct {
	Network string // udp or tcp
	Address string // as the configuration has it

	// Ours asks whoever has the port already whether it is this daemon; address is
	// one that can be dialled. Nil: nobody is asked.
	Ours func(ctx context.Context, address string) error
}

// Ports tries to listen at all addresses at a time.
func Ports(ctx context.Context, r *Report, ports ...Port) {
	var open []io.Closer
	all := make(map[string][]string)
	for _, p := range ports {
		all[p.Network] = append(all[p.Network], p.Address)
	}
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for _, p := range ports {
		c, err := p.listen(ctx, daemon.Network(p.Network, p.Address, all[p.Network]))
		if err == nil {
			open = append(open, c)
			r.OK("ports", "%s %s is free", p.Network, p.Address)
			continue
		}
		p.judge(ctx, r, err)
	}
}

func (p *Port) listen(ctx context.Context, network string) (io.Closer, error) {
	if p.Network == "udp" {
		return new(net.ListenConfig).ListenPacket(ctx, network, p.Address)
	}
	return new(net.ListenConfig).Listen(ctx, network, p.Address)
}

func (p *Port) judge(ctx context.Context, r *Report, err error) {
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && p.Ours != nil:
		ctx, cancel := context.WithTimeout(ctx, dialLimit)
		defer cancel()
		if foreign := p.Ours(ctx, dialable(p.Address)); foreign != nil {
			r.Fail("ports", "port_taken", "find out who has it (ss -lntup), or configure another one", "%s %s is in use, and not by this daemon: %v", p.Network, p.Address, foreign)
			return
		}
		r.OK("ports", "%s %s is served by this daemon already", p.Network, p.Address)
	case errors.Is(err, syscall.EADDRINUSE):
		r.Fail("ports", "port_taken", "find out who has it (ss -lntup), or configure another one", "%s %s is in use", p.Network, p.Address)
	case errors.Is(err, syscall.EACCES):
		r.Fail("ports", "port_forbidden", "choose a port from 1024 on, or give the unit CAP_NET_BIND_SERVICE", "%s %s is not for this user", p.Network, p.Address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		r.Fail("ports", "port_no_address", "name an address that this machine has (ip address), or let the network come up first", "%s %s: this machine does not have that address", p.Network, p.Address)
	default:
		r.Fail("ports", "port_invalid", "write HOST:PORT", "%s %s: %v", p.Network, p.Address, err)
	}
}

// dialable is where somebody who listens at an address can be reached from here.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if strings.Contains(address, "::") {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// Healthz asks whether a health page of one of our daemons answers at an address.
func Healthz(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var all map[string]string
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&all); err != nil || all["store"] == "" {
		return errors.New("it has no health page of ours")
	}
	return nil
}
