// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"valise/internal/figure"
)

// A point is what messages cost at one place of the curve, in microseconds of processor
// time, and how many a second there were.
type point struct {
	devices, stored  int
	cost, rate       float64 // a message, written, fetched and acknowledged
	drainCost, drain float64 // a stored message, fetched and acknowledged; 0: none was
	resident         float64 // MB of this process
	disk             float64 // MB
}

// A curve is what was measured of one store.
type curve struct {
	out    io.Writer
	name   string
	points []point
}

// step measures one more point.
func (c *curve) step(ctx context.Context, w *world, p plan) error {
	at := point{devices: len(w.devices), stored: w.waiting}
	if err := errors.Join(w.in.Tidy(ctx), w.settle(ctx)); err != nil {
		return err
	}
	if err := w.converse(ctx, p.put/4); err != nil {
		return err
	}
	var err error
	if at.cost, at.rate, err = c.median(p.rounds, w, func() (int, error) { return p.put, w.converse(ctx, p.put) }); err != nil {
		return err
	}
	if w.waiting > 0 {
		at.drainCost, at.drain, err = c.median(1, w, func() (int, error) { return w.drain(ctx, min(p.drained, w.waiting/2)) })
		if err != nil {
			return err
		}
		w.waiting = at.stored - min(p.drained, at.stored/2)
		w.settled = w.waiting
	}
	size, err := w.in.size()
	if err != nil {
		return err
	}
	at.disk, at.resident = float64(size)/1e6, resident()
	c.points = append(c.points, at)
	return c.print(at)
}

// median measures rounds of work and returns the median of their costs and rates.
func (c *curve) median(rounds int, w *world, work func() (int, error)) (cost, rate float64, err error) {
	var costs, rates []float64
	for range rounds {
		before, err := w.in.used()
		if err != nil {
			return 0, 0, err
		}
		started := time.Now()
		n, err := work()
		if err != nil {
			return 0, 0, err
		}
		took := time.Since(started)
		after, err := w.in.used()
		if err != nil {
			return 0, 0, err
		}
		costs = append(costs, float64((after-before).Microseconds())/float64(n))
		rates = append(rates, float64(n)/took.Seconds())
	}
	slices.Sort(costs)
	slices.Sort(rates)
	return costs[len(costs)/2], rates[len(rates)/2], nil
}

func (c *curve) print(at point) error {
	where := fmt.Sprintf("scale_%s_%d_devices_%d_stored", c.name, at.devices, at.stored)
	for _, f := range []struct {
		what  string
		value float64
		unit  string
	}{
		{"cost", at.cost, "cpu-µs/message"},
		{"rate", at.rate, "message/s"},
		{"drain_cost", at.drainCost, "cpu-µs/message"},
		{"drain_rate", at.drain, "message/s"},
		{"resident", at.resident, "MB"},
		{"disk", at.disk, "MB"},
	} {
		if f.value == 0 {
			continue
		}
		if err := figure.Print(c.out, where+"_"+f.what, f.value, f.unit); err != nil {
			return err
		}
	}
	return nil
}

// end tells how much the largest cost is above that of the first step.
func (c *curve) end() error {
	first, most := c.points[0], c.points[0].cost
	for _, p := range c.points {
		most = max(most, p.cost)
	}
	return figure.Print(c.out, "scale_"+c.name+"_cost_growth", most/first.cost, "ratio")
}

// resident is this process's memory in MB (proc(5): VmRSS).
func resident() float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1000
		}
	}
	return 0
}
