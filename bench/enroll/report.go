// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"valise/internal/figure"
)

// A cell is a server with a number of clients; a table holds a measurement of each
// round.
type (
	cell struct {
		server  string
		clients int
	}
	table map[cell][]measurement
)

// errBaseline says that this run cannot compare.
var errBaseline = errors.New("baseline invalid: step-ca is far below what it does on a quiet machine; measure again on one")

// report prints the medians, and compares if it may.
func report(servers []*server, all table, compare bool) error {
	for _, s := range servers {
		for _, n := range clientCounts {
			rows := all[cell{s.name, n}]
			name := fmt.Sprintf("enroll_%s_%d_", s.name, n)
			if err := errors.Join(
				figure.Print(os.Stdout, name+"rate", median(rows, func(i int) float64 { return rows[i].rate }), "certificate/s"),
				figure.Print(os.Stdout, name+"cpu", median(rows, func(i int) float64 { return rows[i].cpu }), "ms"),
				figure.Print(os.Stdout, name+"cpu_daemon", median(rows, func(i int) float64 { return rows[i].daemon }), "ms"),
				figure.Print(os.Stdout, name+"p50", median(rows, func(i int) float64 { return rows[i].p50 }), "ms"),
			); err != nil {
				return err
			}
		}
	}
	if !compare {
		return nil
	}
	var invalid error
	for _, n := range clientCounts {
		mine, theirs := all[cell{ours, n}], all[cell{baseline, n}]
		if rate := median(theirs, func(i int) float64 { return theirs[i].rate }); rate < bent*expected[n] {
			fmt.Printf("baseline invalid: step-ca with %d clients gives %.1f certificates a second, less than %.0f%% of %g\n", n, rate, bent*100, expected[n])
			invalid = errBaseline
			continue
		}
		name := fmt.Sprintf("enroll_postgres_p256_%d_", n)
		if err := errors.Join(
			figure.Print(os.Stdout, name+"rate_ratio", median(mine, func(i int) float64 { return mine[i].rate / theirs[i].rate }), "ratio"),
			figure.Print(os.Stdout, name+"cpu_ratio", median(mine, func(i int) float64 { return mine[i].cpu / theirs[i].cpu }), "ratio"),
		); err != nil {
			return err
		}
	}
	return invalid
}

// median of a value of each round.
func median(rows []measurement, value func(i int) float64) float64 {
	list := make([]float64, len(rows))
	for i := range rows {
		list[i] = value(i)
	}
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
