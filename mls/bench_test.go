// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"valise/internal/figure"
)

var benchSuites = []struct {
	name  string
	suite Suite
}{{"suite2", SuiteP256}, {"suite7", SuiteP384}, {"hybrid", SuiteMLKEM1024P384}}

// BenchmarkGroup measures the operations of groups in which every member has
// committed, each beside the primitive operations that its formula
// (counts_test.go) demands, run alone on one core. It leaves out the card
// (signatures are made in software), the caller's Authenticator and
// certificates (credentials are basic), and the disk.
//
// NAME_ms is the median of several samples on one core, NAME_bound_ms that of
// the primitives, NAME_ratio the median of the ratios of samples taken one
// right after the other. NAME_two_cores compares the best samples on one and
// on two cores: what disturbs a sample only ever lengthens it.
func BenchmarkGroup(b *testing.B) {
	targets, err := figure.Load()
	must(b, err)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, c := range benchSuites {
		growth := map[string]map[int]float64{}
		for _, n := range []int{2, 10, 100, 1000} {
			m := &meter{b: b, targets: targets, prefix: fmt.Sprintf("mls_%s_n%d_", c.name, n), growth: map[string]float64{}}
			m.scene(c.suite, n)
			for name, ms := range m.growth {
				if growth[name] == nil {
					growth[name] = map[int]float64{}
				}
				growth[name][n] = ms
			}
		}
		// From 100 to 1000 members, n log n grows by a factor of 15.
		m := &meter{b: b, targets: targets, prefix: "mls_" + c.name + "_"}
		for _, name := range slices.Sorted(maps.Keys(growth)) {
			nlogn := 1000 * math.Log2(1000) / (100 * math.Log2(100))
			m.print(name+"_growth", growth[name][1000]/growth[name][100]/nlogn, "ratio")
		}
	}
}

// A meter prints the figures of one group.
type meter struct {
	b       testing.TB
	targets figure.Targets
	prefix  string
	growth  map[string]float64 // ms by operation
}

func (m *meter) print(name string, value float64, unit string) {
	must(m.b, m.targets.Print(os.Stdout, m.prefix+name, value, unit))
}

func (m *meter) scene(suite Suite, n int) {
	c := instrument(m.b, suite)
	row := mustSuite(suite)
	row.counts = nil
	sc := newScene(m.b, suite, n)
	stick := newYardstick(m.b, row)
	for _, op := range sc.operations() {
		row.counts = c
		op.before(1)
		c.take()
		op.run(0)
		counted, bytes := c.take()
		row.counts = nil
		if counted != op.want {
			m.b.Fatalf("%s%s:\n counted%v\n formula%v", m.prefix, op.name, counted, op.want)
		}
		m.operation(op, stick.alone(counted, bytes))
	}
	m.sizes(sc)
	runtime.KeepAlive(sc)
}

// sizes prints what travels and what is kept. The Welcome is for one member.
func (m *meter) sizes(sc *scene) {
	m.print("commit_bytes", float64(len(sc.commit.Commit)), "B")
	m.print("welcome_bytes", float64(len(sc.add.Welcome)), "B")
	m.print("tree_bytes", float64(len(sc.tree)), "B")
	m.print("first_commit_bytes", float64(len(sc.founded.Commit)), "B")
	m.print("first_welcome_bytes", float64(len(sc.founded.Welcome)), "B")
	m.print("state_bytes", float64(len(sc.y.disk.Marshal())), "B")
	delta := 0
	for _, r := range sc.commit.Delta {
		delta += len(r.Key) + len(r.Value)
	}
	m.print("commit_delta_bytes", float64(delta), "B")
	before := heap()
	g, err := Load(sc.y.cfg, sc.y.id, sc.y.disk)
	must(m.b, err)
	m.print("heap_bytes", heap()-before, "B")
	runtime.KeepAlive(g)
}

func heap() float64 {
	var ms runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&ms)
	return float64(ms.HeapAlloc)
}

// sampleTime is how long one sample should take, sampleBudget what all of an
// operation may take if the least number of rounds is done.
const (
	sampleTime   = 15 * time.Millisecond
	sampleBudget = 800 * time.Millisecond
	leastRounds  = 3
	mostRounds   = 21
)

// operation samples one operation in rounds: alone, on one core, on two, in
// an order that rotates.
func (m *meter) operation(op operation, bound func()) {
	once := func(n int) float64 {
		op.before(n)
		runtime.GC()
		start := time.Now()
		for i := range n {
			op.run(i)
		}
		return float64(time.Since(start).Nanoseconds()) / float64(n) / 1e6
	}
	alone := func(n int) float64 {
		runtime.GC()
		start := time.Now()
		for range n {
			bound()
		}
		return float64(time.Since(start).Nanoseconds()) / float64(n) / 1e6
	}
	two := func(n int) float64 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
		return once(n)
	}
	once(1)
	n := int(min(max(1, sampleTime.Seconds()*1000/once(1)), 400))
	samplers := []func(int) float64{alone, once}
	if slices.Contains([]string{"create", "commit", "join", "external_join"}, op.name) {
		samplers = append(samplers, two)
	}
	times := make([][]float64, len(samplers))
	var ratios []float64
	for start, r := time.Now(), 0; r < leastRounds || (r < mostRounds && time.Since(start) < sampleBudget); r++ {
		took := make([]float64, len(samplers))
		for i := range samplers {
			k := (i + r) % len(samplers)
			took[k] = samplers[k](n)
			times[k] = append(times[k], took[k])
		}
		ratios = append(ratios, took[1]/took[0])
	}
	ms := median(times[1])
	m.print(op.name+"_ms", ms, "ms")
	m.growth[op.name] = ms
	if op.want != (ops{}) {
		m.print(op.name+"_bound_ms", median(times[0]), "ms")
		m.print(op.name+"_ratio", median(ratios), "ratio")
	}
	if len(samplers) > 2 {
		m.print(op.name+"_two_cores", slices.Min(times[1])/slices.Min(times[2]), "ratio")
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
