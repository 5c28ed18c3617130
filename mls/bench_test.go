// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"syscall"
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
// NAME_ms is the median processor time of several samples on one core,
// NAME_bound_ms that of the primitives, NAME_ratio the median of the ratios of
// samples taken one right after the other. NAME_two_cores is the median of the
// ratios of time by the clock, on one core to on two, of such neighbours.
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

// sampleTime is how long one sample should take. Rounds end after sampleBudget
// if at least leastRounds were done, and after sampleLimit in any case.
const (
	sampleTime   = 60 * time.Millisecond
	sampleBudget = 500 * time.Millisecond
	sampleLimit  = 6 * time.Second
	leastRounds  = 3
	mostRounds   = 15
)

// A sample is the time of one run, in ms, by the clock and by the processor.
type sample struct{ clock, cpu float64 }

// take runs f n times.
func take(n int, f func(i int)) sample {
	runtime.GC()
	clock, cpu := time.Now(), processorTime()
	for i := range n {
		f(i)
	}
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(n) / 1e6 }
	return sample{ms(time.Since(clock)), ms(processorTime() - cpu)}
}

// processorTime is what this process has used so far, its threads added up.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// operation samples one operation in rounds: alone, on one core, on two, in
// an order that rotates.
func (m *meter) operation(op operation, bound func()) {
	once := func(n int) sample {
		op.before(n)
		return take(n, op.run)
	}
	alone := func(n int) sample { return take(n, func(int) { bound() }) }
	two := func(n int) sample {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
		return once(n)
	}
	begin := time.Now()
	n := int(min(max(1, sampleTime.Seconds()*1000/once(1).cpu), 400))
	samplers := []func(int) sample{alone, once}
	if slices.Contains([]string{"create", "commit", "join", "external_join"}, op.name) {
		samplers = append(samplers, two)
	}
	cpu, clock := make([][]float64, len(samplers)), make([][]float64, len(samplers))
	var ratios, shared []float64
	for r := range mostRounds {
		if spent := time.Since(begin); r > 0 && spent > sampleLimit || r >= leastRounds && spent > sampleBudget {
			break
		}
		for i := range samplers {
			k := (i + r) % len(samplers)
			s := samplers[k](n)
			cpu[k], clock[k] = append(cpu[k], s.cpu), append(clock[k], s.clock)
		}
		ratios = append(ratios, cpu[1][r]/cpu[0][r])
		if len(samplers) > 2 {
			shared = append(shared, clock[1][r]/clock[2][r])
		}
	}
	ms := median(cpu[1])
	m.print(op.name+"_ms", ms, "ms")
	m.growth[op.name] = ms
	if op.want != (ops{}) {
		m.print(op.name+"_bound_ms", median(cpu[0]), "ms")
		m.print(op.name+"_ratio", median(ratios), "ratio")
	}
	if len(samplers) > 2 {
		m.print(op.name+"_two_cores", median(shared), "ratio")
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
