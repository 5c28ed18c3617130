// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"valise/internal/figure"
)

// facts are what the yardsticks did on a quiet machine of two cores, messages a
// second; bent is how far below them one may be and still be compared with.
var facts = map[string]map[string]float64{
	natsDefault: {
		"p1k1_rate": 4600, "p1k16_rate": 26e3, "p16k1_rate": 14e3, "p16k16_rate": 34e3, "p64k1_rate": 10e3, "p64k16_rate": 26e3,
		"store_rate": 96e3, "drain_rate": 11e3,
	},
	natsAlways: {
		"p1k1_rate": 1600, "p1k16_rate": 2800, "p16k1_rate": 1900, "p16k16_rate": 2400, "p64k1_rate": 1800, "p64k16_rate": 2000,
		"store_rate": 4200, "drain_rate": 7700,
	},
	mosquitto: {
		"p1k1_rate": 10e3, "p1k16_rate": 35e3, "p16k1_rate": 34e3, "p16k16_rate": 38e3, "p64k1_rate": 35e3, "p64k16_rate": 35e3,
		"store_rate": 74e3, "drain_rate": 24e3,
	},
	bareNothing: {
		"p1k1_rate": 7400, "p1k16_rate": 40e3, "p16k1_rate": 24e3, "p16k16_rate": 97e3, "p64k1_rate": 21e3, "p64k16_rate": 73e3,
		"connect_rate": 938,
	},
	bareWithLog: {
		"p1k1_rate": 2500, "p1k16_rate": 20e3, "p16k1_rate": 10e3, "p16k16_rate": 50e3, "p64k1_rate": 11e3, "p64k16_rate": 68e3,
		"store_rate": 146e3, "drain_rate": 35e3,
	},
}

const bent = 0.75

// comparisons are the ratios that have targets in bench/targets.txt.
var comparisons = []struct{ mine, theirs, figure string }{
	{ours, mosquitto, "p16k16_rate"},
	{ours, mosquitto, "p64k16_rate"},
	{ours, natsDefault, "p16k16_rate"},
	{ours, natsDefault, "p64k16_rate"},
	{ours, natsAlways, "p16k16_rate"},
	{ours, natsAlways, "p64k16_rate"},
	{ours, natsAlways, "p16k1_rate"},
	{ours, bareWithLog, "p16k16_rate"},
	{ours, bareWithLog, "p64k16_rate"},
	{ours, natsDefault, "store_rate"},
	{ours, natsDefault, "drain_rate"},
	{ours, bareNothing, "connect_rate"},
	{oursPostgres, ours, "p16k16_rate"},
	{oursPostgres, ours, "p64k16_rate"},
}

// units of what a table holds, by the end of its name.
var units = []struct{ end, unit string }{
	{"store_rate", "message/s"},
	{"drain_rate", "message/s"},
	{"connect_rate", "connection/s"},
	{"_rate", "message/s"},
	{"connect_cpu", "ms"},
	{"_cpu", "ms"},
	{"_rss", "MB"},
	{"_growth", "MB"},
	{"_kb", "kB"},
}

func unit(figure string) string {
	for _, u := range units {
		if len(figure) >= len(u.end) && figure[len(figure)-len(u.end):] == u.end {
			return u.unit
		}
	}
	return "count"
}

// order of figures in the report.
func figures() (list []string) {
	for _, c := range grid {
		list = append(list, c.String()+"_rate", c.String()+"_cpu")
	}
	return append(list, "store_rate", "store_cpu", "store_clients_cpu", "drain_rate", "stored_rss", "connected_rss", "drain_growth", "connect_rate", "connect_cpu", "connection_kb")
}

// errBaseline says that this run cannot compare everything.
var errBaseline = errors.New("baseline invalid: a yardstick is far below what it does on a quiet machine; measure again on one")

// report prints medians, and ratios where it may compare.
func report(targets []*target, all table) error {
	for _, t := range targets {
		for _, f := range figures() {
			if rows := all[t.name][f]; len(rows) > 0 {
				if err := figure.Print(os.Stdout, "relay_"+t.name+"_"+f, median(rows), unit(f)); err != nil {
					return err
				}
			}
		}
	}
	var invalid error
	for _, c := range comparisons {
		mine, theirs := all[c.mine][c.figure], all[c.theirs][c.figure]
		if len(mine) == 0 || len(theirs) == 0 {
			continue
		}
		if fact := facts[c.theirs][c.figure]; median(theirs) < bent*fact {
			fmt.Printf("baseline invalid: %s %s is %.0f, less than %.0f%% of %.0f\n", c.theirs, c.figure, median(theirs), bent*100, fact)
			invalid = errBaseline
			continue
		}
		ratios := make([]float64, len(mine))
		for i := range mine {
			ratios[i] = mine[i] / theirs[i]
		}
		name := "relay_" + c.mine + "_to_" + c.theirs + "_" + c.figure[:len(c.figure)-len("_rate")]
		if err := figure.Print(os.Stdout, name, median(ratios), "ratio"); err != nil {
			return err
		}
	}
	return invalid
}

func median(values []float64) float64 {
	list := slices.Sorted(slices.Values(values))
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
