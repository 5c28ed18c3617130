// SPDX-License-Identifier: Apache-2.0

//go:build linux

package land

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"valise/internal/handbook"
	"valise/internal/stage"
)

// A Config says what a land is made of.
type Config struct {
	Bin      string // folder of the built commands
	Project  string // folder of the project, for packaging/
	Table    handbook.Table
	Machines []Machine
	Patience time.Duration // bounds each wait; default two minutes, for machines ten times as slow as others
}

// A Land has the machines, and the values that documents have shown.
type Land struct {
	cfg      Config
	dir      string
	stage    *stage.Stage
	machines map[string]*machine
	wire     *machine // whose network joins all others
	values   handbook.Values
	section  string // that the values are of
}

const (
	subnet = "10.77.0."
	// firmware of the virtual cards: one that vendors' policies accept.
	firmware = "5.7.1"
)

// New makes the machines.
func New(ctx context.Context, cfg Config) (*Land, error) {
	cfg.Patience = cmp.Or(cfg.Patience, 2*time.Minute)
	s, err := stage.New(stage.Config{Bin: cfg.Bin})
	if err != nil {
		return nil, err
	}
	l := &Land{
		cfg: cfg, dir: s.Dir, stage: s, machines: make(map[string]*machine),
		values: handbook.Values{"DATE": time.Now().Format(time.DateOnly)},
	}
	if err := l.make(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Close ends all machines and removes what was made.
func (l *Land) Close() error {
	for _, m := range l.machines {
		m.halt()
	}
	if l.wire != nil {
		l.wire.halt()
	}
	l.stage.Close()
	return l.stage.Remove()
}

func (l *Land) make(ctx context.Context) (err error) {
	stick := filepath.Join(l.dir, "stick")
	if err := os.Mkdir(stick, 0o700); err != nil {
		return err
	}
	if l.wire, err = boot(ctx, filepath.Join(l.dir, "wire"), stick); err != nil {
		return err
	}
	if err := run(ctx, l.wire.inside(nil, "ip", "link", "add", "br0", "type", "bridge").Args...); err != nil {
		return err
	}
	if err := run(ctx, l.wire.inside(nil, "ip", "link", "set", "br0", "up").Args...); err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n"
	for i, c := range l.cfg.Machines {
		hosts += fmt.Sprintf("%s%d %s\n", subnet, i+1, strings.Join(append(c.Hosts, c.Name), " "))
	}
	made := make([]*machine, len(l.cfg.Machines))
	var g errgroup.Group
	for i, c := range l.cfg.Machines {
		g.Go(func() (err error) {
			made[i], err = l.machine(ctx, i+1, c, stick, hosts)
			return err
		})
	}
	err = g.Wait()
	for _, m := range made {
		if m != nil {
			l.machines[m.Name] = m
		}
	}
	if err != nil {
		return err
	}
	return l.insertCards(ctx)
}

// machine boots one and joins it to the others.
func (l *Land) machine(ctx context.Context, n int, c Machine, stick, hosts string) (*machine, error) {
	m, err := boot(ctx, filepath.Join(l.dir, "m", c.Name), stick)
	if err != nil {
		return nil, err
	}
	m.Machine, m.address = c, fmt.Sprintf("%s%d", subnet, n)
	m.env = []string{
		"HOME=" + userHome, "USER=user", "TERM=dumb", "LANG=C.UTF-8", "PATH=" + l.cfg.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin",
	}
	end := fmt.Sprintf("v%d", n)
	for _, args := range [][]string{
		{"ip", "link", "add", "eth0", "netns", fmt.Sprint(m.pid), "type", "veth", "peer", "name", end, "netns", fmt.Sprint(l.wire.pid)},
		l.wire.inside(nil, "ip", "link", "set", end, "master", "br0", "up").Args,
		m.inside(nil, "/bin/sh", "-c", fmt.Sprintf("ip addr add %s/24 dev eth0 && ip link set eth0 up", m.address)).Args,
	} {
		if err := run(ctx, args...); err != nil {
			return m, err
		}
	}
	return m, m.write("/etc/hosts", hosts)
}

// userHome is the home directory of whoever uses a machine.
const userHome = "/home" + "/user"

// insertCards makes the cards and puts them into readers beside the machines. Their root
// lies on the stick, as card-roots.pem, as a vendor's would, and so do the policies that
// come with Valise.
func (l *Land) insertCards(ctx context.Context) error {
	root, serial := l.stage.AttestationRoot("attestation"), uint32(30000000)
	var all []*machine
	for _, c := range l.cfg.Machines {
		m := l.machines[c.Name]
		for range c.Cards {
			serial++
			card, err := l.stage.NewCardOf(ctx, root, serial, firmware)
			if err != nil {
				return err
			}
			m.cards = append(m.cards, card)
		}
		if c.Cards > 0 {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return nil
	}
	var g errgroup.Group
	for _, m := range all {
		g.Go(func() error {
			r, err := l.stage.NewReader(ctx, m.Name, m.cards...)
			if err == nil {
				m.env = append(m.env, r.Env...)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	pem, err := l.stage.RootPEM(ctx, root)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(pem)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(l.dir, "stick", "card-roots.pem"), data, 0o644),
		os.CopyFS(filepath.Join(l.dir, "stick", "policies"), os.DirFS(filepath.Join(l.cfg.Project, "policies"))),
	)
}

// Values are what the documents have shown.
func (l *Land) Values() handbook.Values { return l.values }

// Logs gives what daemons and agents have written.
func (l *Land) Logs() string {
	var b strings.Builder
	for _, m := range l.machines {
		for name, u := range m.units {
			fmt.Fprintf(&b, "%s on %s:\n%s\n", name, m.Name, u.log())
		}
		files, _ := filepath.Glob(filepath.Join(m.root, userHome, ".local/state/valise/agent.log"))
		for _, f := range files {
			data, _ := os.ReadFile(f)
			fmt.Fprintf(&b, "agent on %s:\n%s\n", m.Name, data)
		}
	}
	return b.String()
}
