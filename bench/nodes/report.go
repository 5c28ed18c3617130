// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"

	"valise/internal/figure"
)

// full is from which share on processors count as used up: what is left is the time in which
// everybody waits for the same disk.
const full = 0.85

// report prints medians, and which resource ends the growth.
func (b *bench) report(out io.Writer) error {
	for _, n := range slices.Sorted(slices.Values(b.gateways)) {
		rounds := b.all[n]
		name := fmt.Sprintf("nodes_%d_", n)
		if n == 0 {
			name = "nodes_alone_"
		}
		for _, f := range []struct {
			name, unit string
			of         func(*result) float64
		}{
			{"rate", "message/s", func(r *result) float64 { return r.rate }},
			{"gateways_cpu", "ms", func(r *result) float64 { return r.gateways }},
			{"database_cpu", "ms", func(r *result) float64 { return r.database }},
			{"clients_cpu", "ms", func(r *result) float64 { return r.clients }},
			{"processors_busy", "ratio", func(r *result) float64 { return r.busy }},
			{"wake_same_p50", "ms", func(r *result) float64 { return quantile(r.in, 0.5) }},
			{"wake_same_p99", "ms", func(r *result) float64 { return quantile(r.in, 0.99) }},
		} {
			if err := figure.Print(out, name+f.name, median(rounds, f.of), f.unit); err != nil {
				return err
			}
		}
		if n < 2 {
			continue
		}
		for _, f := range []struct {
			name string
			of   func(*result) float64
		}{
			{"wake_other_p50", func(r *result) float64 { return quantile(r.over, 0.5) }},
			{"wake_other_p99", func(r *result) float64 { return quantile(r.over, 0.99) }},
			{"wake_later_p99", func(r *result) float64 { return quantile(r.over, 0.99) - quantile(r.in, 0.99) }},
		} {
			if err := figure.Print(out, name+f.name, median(rounds, f.of), "ms"); err != nil {
				return err
			}
		}
	}
	most := slices.Max(b.gateways)
	_, err := fmt.Fprintf(out, "%s: %s\n", title(most), end(b.all[most]))
	return err
}

// end says which resource ends the growth, by what was seen of the last rates.
func end(rounds []*result) string {
	of := func(f func(*result) float64) float64 { return median(rounds, f) }
	busy := of(func(r *result) float64 { return r.busy })
	parts := fmt.Sprintf("processors %.0f%% busy, gateways with %.0f%%, the database with %.0f%%, the clients with %.0f%% of them; %v", 100*busy,
		100*of(func(r *result) float64 { return r.gatewaysBusy }), 100*of(func(r *result) float64 { return r.databaseBusy }),
		100*of(func(r *result) float64 { return r.clientsBusy }), rounds[len(rounds)-1].waits)
	disk, locks := of(func(r *result) float64 { return r.waits.disk }), of(func(r *result) float64 { return r.waits.locks })
	turn := of(func(r *result) float64 { return r.waits.gateway })
	switch {
	case busy >= full:
		return "the processors of this machine end the growth: " + parts
	case disk >= locks && disk >= turn:
		return "the disk ends the growth: " + parts
	case locks >= turn:
		return "locks in the database end the growth: " + parts
	}
	return "the gateways' turns in a transaction end the growth: " + parts
}

func median(rounds []*result, of func(*result) float64) float64 {
	var list []float64
	for _, r := range rounds {
		list = append(list, of(r))
	}
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
