// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"valise/bench/daemons"
)

// warm is what comes before a rate is counted.
const warm = time.Second

// A result is one measurement of some gateways.
type result struct {
	rate float64
	// Milliseconds of processor time for 1,000 messages.
	gateways, database, clients float64
	busy                        float64 // share of all processors that was used, by anybody
	gatewaysBusy, databaseBusy  float64
	clientsBusy                 float64
	waits                       waits
	in, over                    []float64 // wake-ups, in ms, sorted
}

// results are those of all rounds, by the number of gateways.
type results map[int][]*result

// measure starts gateways and clients and does everything once.
func (b *bench) measure(ctx context.Context, gateways, round int) error {
	dir := filepath.Join(b.dir, fmt.Sprintf("%d-%d", gateways, round))
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := b.start(ctx, dir, gateways)
	defer s.stop()
	if err != nil {
		return err
	}
	c, err := b.startClients(ctx, s)
	if err != nil {
		return errors.Join(err, s.ended())
	}
	defer c.stop()
	r := new(result)
	a, err := c.do(task{Do: "wake", Count: b.wakes})
	if err == nil {
		r.in, r.over = a.In, a.Over
		err = b.rate(ctx, s, c, r)
	}
	if err != nil {
		return errors.Join(err, s.ended())
	}
	b.all[gateways] = append(b.all[gateways], r)
	r.say(round, gateways)
	return nil
}

// rate has all pairs send, and sees who uses what meanwhile.
func (b *bench) rate(ctx context.Context, s *site, c *clients, r *result) error {
	type answered struct {
		a   answer
		err error
	}
	done := make(chan answered, 1)
	go func() {
		a, err := c.do(task{Do: "run", Flight: b.flight, Warm: warm, Length: b.length})
		done <- answered{a, err}
	}()
	time.Sleep(warm)
	before, err := look(s)
	if err != nil {
		return err
	}
	w, err := watch(ctx, s.cluster.DSN("valise"), b.length)
	if err != nil {
		return err
	}
	after, err := look(s)
	if err != nil {
		return err
	}
	end := <-done
	if end.err != nil {
		return end.err
	}
	r.rate, r.waits = float64(end.a.Count)/end.a.Seconds, w
	r.note(before, after, end.a)
	return nil
}

// A sight is how much processor time has been used up to a moment.
type sight struct {
	gateways, database time.Duration
	machine            usage
	at                 time.Time
}

func look(s *site) (v sight, err error) {
	var err1, err2, err3 error
	v.gateways, err1 = daemons.CPU(s.gateways...)
	v.database, err2 = daemons.CPU(s.cluster.Process)
	v.machine, err3 = readUsage()
	v.at = time.Now()
	return v, errors.Join(err1, err2, err3)
}

// note puts down what was used between two moments.
func (r *result) note(before, after sight, a answer) {
	messages := r.rate * after.at.Sub(before.at).Seconds() / 1000
	all := (after.machine.busy - before.machine.busy + after.machine.idle - before.machine.idle).Seconds()
	gateways, database := (after.gateways - before.gateways).Seconds(), (after.database - before.database).Seconds()
	r.gateways, r.database, r.clients = gateways*1000/messages, database*1000/messages, a.CPU*1000/a.Seconds/r.rate*1000
	r.busy = (after.machine.busy - before.machine.busy).Seconds() / all
	r.gatewaysBusy, r.databaseBusy, r.clientsBusy = gateways/all, database/all, a.CPU/all
}

func (r *result) say(round, gateways int) {
	fmt.Printf("round %d  %-8s %7.0f messages/s  CPU-ms per 1000: gateways %.1f, database %.1f, clients %.1f  processors %.0f%% busy  %v\n",
		round+1, title(gateways), r.rate, r.gateways, r.database, r.clients, 100*r.busy, r.waits)
	fmt.Printf("round %d  %-8s wake-up: %s at the same gateway", round+1, title(gateways), spread(r.in))
	if len(r.over) > 0 {
		fmt.Printf(", %s at another", spread(r.over))
	}
	fmt.Println()
}

func spread(sorted []float64) string {
	return fmt.Sprintf("p50 %.2f p99 %.2f ms", quantile(sorted, 0.5), quantile(sorted, 0.99))
}

// quantile is of a sorted list that is not empty.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Clients are the process of all devices.
type clients struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end func() error
}

// startClients starts them and returns when all are connected.
func (b *bench) startClients(ctx context.Context, s *site) (*clients, error) {
	cmd := exec.CommandContext(ctx, b.self, "load", toJSON(load{Dir: b.dir, Addresses: s.addresses, Pairs: b.pairs}))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &clients{cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(out), end: in.Close}
	var ready answer
	if err := c.out.Decode(&ready); err != nil {
		c.stop()
		return nil, fmt.Errorf("the clients have ended: %w", err)
	}
	return c, nil
}

// do has them do a task.
func (c *clients) do(t task) (a answer, err error) {
	if err := c.in.Encode(t); err != nil {
		return a, err
	}
	if err := c.out.Decode(&a); err != nil {
		return a, fmt.Errorf("%s: the clients have ended: %w", t.Do, err)
	}
	if a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

func (c *clients) stop() {
	_ = c.end()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
