// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A record is what a small honest soak would have written down: three people, one of
// whom comes into the conversation later and goes again.
type record struct {
	plan       map[string]any
	operations []map[string]any
	faults     []map[string]any
	shown      map[string][]map[string]any
	seen       map[string][]map[string]any

	clock   int64
	numbers map[string]int
}

func device(name string) string { return strings.Repeat(name[:1], 64) }

func honest() *record {
	r := &record{shown: map[string][]map[string]any{}, seen: map[string][]map[string]any{}, numbers: map[string]int{}}
	var people []map[string]string
	for _, name := range []string{"alice", "bob", "carol"} {
		people = append(people, map[string]string{"name": name, "address": name + "@x.example", "device": device(name)})
	}
	r.plan = map[string]any{
		"people": people, "kinds": []string{"gateway killed", "power loss"},
		"conversations": []map[string]any{{"name": "room", "members": []string{"alice", "bob"}}},
	}
	r.faults = []map[string]any{{"kind": "gateway killed"}, {"kind": "power loss"}, {"kind": "power loss"}}
	two, three := []string{"alice", "bob"}, []string{"alice", "bob", "carol"}
	r.change("added", "alice", "bob", 1, two)
	r.send("alice", 1, two)
	r.send("bob", 1, two)
	r.change("added", "bob", "carol", 2, three)
	r.send("alice", 2, three)
	r.send("alice", 2, three)
	r.send("carol", 2, three)
	r.send("bob", 3, three) // somebody has healed the group
	r.change("removed", "alice", "carol", 4, two)
	r.send("alice", 4, two)
	r.send("bob", 4, two)
	return r
}

func (r *record) tick() int64 { r.clock += 10; return r.clock }

// show lets a device display something.
func (r *record) show(name string, ev map[string]any) {
	cursor := fmt.Sprintf("x.%d", len(r.shown[name])+1)
	line := map[string]any{"cursor": cursor, "name": "room", "outgoing": ev["from"] == name+"@x.example"}
	for k, v := range ev {
		line[k] = v
	}
	if line["kind"] == "added" && fmt.Sprint(line["members"]) == fmt.Sprint(members(name)) {
		line["kind"] = "joined"
	}
	r.shown[name] = append(r.shown[name], line)
	before := r.tick()
	r.seen[name] = append(r.seen[name], map[string]any{"cursor": cursor, "before": before, "after": r.tick()})
}

func members(name string) []map[string]string {
	return []map[string]string{{"address": name + "@x.example", "device": device(name)}}
}

func (r *record) send(by string, epoch int, to []string) {
	r.numbers[by]++
	n := r.numbers[by]
	op := map[string]any{
		"op": "send", "by": by, "conversation": "room", "id": fmt.Sprintf("%s-%d", by, n), "number": n,
		"text": fmt.Sprintf("%s says %d", by, n), "call": r.tick(), "outcome": acknowledged,
	}
	op["return"] = r.tick()
	r.operations = append(r.operations, op)
	for _, name := range to {
		r.show(name, map[string]any{
			"kind": "message", "id": op["id"], "text": op["text"], "from": by + "@x.example", "device": device(by), "epoch": epoch, "sequence": n,
		})
	}
}

func (r *record) change(kind, by, who string, epoch int, told []string) {
	op := map[string]any{"op": map[string]string{"added": "add", "removed": "remove"}[kind], "by": by, "conversation": "room", "who": who + "@x.example", "call": r.tick(), "outcome": acknowledged}
	op["return"] = r.tick()
	r.operations = append(r.operations, op)
	for _, name := range told {
		r.show(name, map[string]any{"kind": kind, "from": by + "@x.example", "device": device(by), "epoch": epoch, "members": members(who)})
	}
	if kind == "removed" {
		r.show(who, map[string]any{"kind": "left", "reason": "removed", "epoch": epoch})
	}
}

// write puts the record into a folder.
func (r *record) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, list []map[string]any) {
		var b strings.Builder
		for _, v := range list {
			line, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("plan.json", []map[string]any{r.plan})
	put("operations.jsonl", r.operations)
	put("faults.jsonl", r.faults)
	for _, name := range []string{"alice", "bob", "carol"} {
		put(name+"/messages.jsonl", r.shown[name])
		put(name+".observed.jsonl", r.seen[name])
	}
	return dir
}

// verdict judges the record.
func (r *record) verdict(t *testing.T) *result {
	t.Helper()
	run, err := read(r.write(t))
	if err != nil {
		return &result{evidence: []string{err.Error()}}
	}
	return run.judge()
}

// at finds the line on which a device shows a message.
func (r *record) at(name, id string) int {
	return slices.IndexFunc(r.shown[name], func(ev map[string]any) bool { return ev["id"] == id })
}

func (r *record) kind(name, kind string) int {
	return slices.IndexFunc(r.shown[name], func(ev map[string]any) bool { return ev["kind"] == kind })
}

func (r *record) drop(name string, i int) {
	r.shown[name], r.seen[name] = slices.Delete(r.shown[name], i, i+1), slices.Delete(r.seen[name], i, i+1)
}

// swap exchanges what two lines show.
func (r *record) swap(name string, i, k int) {
	list := r.shown[name]
	list[i], list[k] = list[k], list[i]
	list[i]["cursor"], list[k]["cursor"] = list[k]["cursor"], list[i]["cursor"]
}

func (r *record) op(id string) map[string]any {
	return r.operations[slices.IndexFunc(r.operations, func(op map[string]any) bool { return op["id"] == id })]
}

func TestHonestRecord(t *testing.T) {
	const want = "soak: ok: 8 acknowledged, 0 lost, 0 duplicated, 0 out of order, 0 undecryptable, 3 faults of 2 kinds"
	if got := honest().verdict(t).String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// failovers adds some to the faults.
func (r *record) failovers(n int) {
	for range n {
		r.faults = append(r.faults, map[string]any{"kind": "failover"})
	}
}

// Of a cluster the line says how often it failed over, and for how long a message was on its
// way at most. What a primary has lost is lost there as anywhere.
func TestClusterRecord(t *testing.T) {
	r := honest()
	r.plan["failovers"] = 3
	r.failovers(3)
	last := r.operations[len(r.operations)-1]
	last["return"] = last["call"].(int64) + 2_500_000_000
	const want = "soak-ha: ok: 8 acknowledged, 0 lost, 0 duplicated, 0 out of order, 0 undecryptable, 3 failovers (longest pause of a client 2.5 s)"
	if got := r.verdict(t).String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	r.drop("bob", r.at("bob", "alice-2"))
	if got := r.verdict(t).String(); !strings.HasPrefix(got, "soak-ha: failed: 8 acknowledged, 1 lost, ") {
		t.Errorf("%s", got)
	}
}

// Whatever is taken from an honest record, put in, exchanged or altered is found.
func TestSabotage(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(r *record)
		counts string // of lost, duplicated, out of order, undecryptable
		say    string
	}{
		"a display dropped":   {func(r *record) { r.drop("bob", r.at("bob", "alice-2")) }, "1 0 0 0", "bob never displayed alice-2"},
		"the last one":        {func(r *record) { r.drop("bob", len(r.shown["bob"])-2) }, "1 0 0 0", "bob never displayed alice-4"},
		"own display dropped": {func(r *record) { r.drop("alice", r.at("alice", "alice-3")) }, "1 0 0 0", "the own device does not show it"},
		"a display repeated": {func(r *record) {
			i := r.at("carol", "alice-3")
			r.shown["carol"] = slices.Insert(r.shown["carol"], i, r.shown["carol"][i])
			r.seen["carol"] = slices.Insert(r.seen["carol"], i, r.seen["carol"][i])
		}, "0 1 0 0", "carol displays alice-3"},
		"one sender's exchanged": {func(r *record) { r.swap("bob", r.at("bob", "alice-2"), r.at("bob", "alice-3")) }, "0 0 1 0", `"alice says 2" after "alice says 3"`},
		"two senders' exchanged": {func(r *record) { r.swap("alice", r.at("alice", "carol-1"), r.at("alice", "bob-2")) }, "0 0 0 0", "the mailbox of alice"},
		"displayed before it was sent": {func(r *record) {
			i := r.at("alice", "bob-2")
			r.seen["alice"][i]["before"], r.seen["alice"][i]["after"] = 1, 2
		}, "0 0 0 0", "the mailbox of alice"},
		"a text altered":     {func(r *record) { r.shown["bob"][r.at("bob", "alice-1")]["text"] = "alice says 7" }, "0 0 0 0", "altered"},
		"another sender":     {func(r *record) { r.shown["bob"][r.at("bob", "alice-1")]["device"] = device("carol") }, "0 0 0 0", "altered"},
		"another room":       {func(r *record) { r.shown["bob"][r.at("bob", "alice-1")]["name"] = "hall" }, "0 0 0 0", "altered"},
		"from nobody":        {func(r *record) { r.shown["bob"][r.at("bob", "alice-1")]["id"] = "alice-99" }, "1 0 0 0", "which nobody sent"},
		"refused, displayed": {func(r *record) { r.op("alice-2")["outcome"] = refused }, "0 0 0 0", "which was refused"},
		"undecryptable": {func(r *record) {
			r.shown["bob"][r.at("bob", "alice-1")] = map[string]any{"cursor": "x.2", "kind": "refused", "name": "room", "from": "alice@x.example", "reason": "message_altered"}
		}, "1 0 0 1", "message_altered"},
		"a successor": {func(r *record) {
			r.show("bob", map[string]any{"kind": "successor", "reason": "rolled_back"})
		}, "0 0 0 0", "rolled_back"},
		"given up after all": {func(r *record) {
			r.show("alice", map[string]any{"kind": "failed", "id": "alice-4", "from": "alice@x.example", "device": device("alice"), "reason": "not_member"})
		}, "1 0 0 0", "after it had been acknowledged"},
		"fell out": {func(r *record) { r.show("bob", map[string]any{"kind": "left", "reason": "unknown_group"}) }, "0 0 0 0", "bob fell out"},
		"a removed member reads on": {func(r *record) {
			r.show("carol", map[string]any{"kind": "message", "id": "bob-3", "text": "bob says 3", "from": "bob@x.example", "device": device("bob"), "epoch": 4})
		}, "0 0 0 0", "without having been a member"},
		"a change not told": {func(r *record) { r.drop("bob", r.kind("bob", "removed")) }, "1 0 0 0", "bob was not told of epoch 4"},
		"a fork":            {func(r *record) { r.shown["bob"][r.kind("bob", "removed")]["device"] = device("bob") }, "0 0 0 0", "epoch 4 of room is"},
		"epochs go back": {func(r *record) {
			for _, name := range []string{"alice", "bob"} {
				r.shown[name][r.at(name, "bob-3")]["epoch"] = 1
			}
		}, "0 0 0 0", "the epochs of room"},
		"a commit not in time": {func(r *record) {
			r.operations[3]["call"], r.operations[3]["return"] = 100000, 100001 // bob's adding
		}, "0 0 0 0", "the epochs of room"},
		"a failover too few":       {func(r *record) { r.plan["failovers"] = 3; r.failovers(2) }, "0 0 0 0", "2 failovers took place"},
		"a kind of fault left out": {func(r *record) { r.faults = r.faults[1:] }, "0 0 0 0", `"gateway killed"`},
		"nothing sent":             {func(r *record) { *r = record{plan: r.plan, faults: r.faults} }, "0 0 0 0", "nothing was acknowledged"},
		"a line vanished":          {func(r *record) { r.shown["bob"] = r.shown["bob"][:3] }, "0 0 0 0", "vanished"},
		"a line changed":           {func(r *record) { r.shown["bob"][2]["cursor"] = "y.3" }, "0 0 0 0", "not observed"},
		"an outcome unheard of":    {func(r *record) { r.op("alice-1")["outcome"] = "fine" }, "0 0 0 0", "makes no sense"},
		"no kinds planned":         {func(r *record) { r.plan["kinds"] = nil }, "0 0 0 0", "0 kinds"},
	} {
		t.Run(name, func(t *testing.T) {
			r := honest()
			c.do(r)
			got := r.verdict(t)
			counts := fmt.Sprint(got.lost, got.duplicated, got.disordered, got.undecryptable)
			if line := strings.Replace(got.String(), "soak-ha:", "soak:", 1); !strings.HasPrefix(line, "soak: failed: ") || counts != c.counts || !strings.Contains(strings.Join(got.evidence, "\n"), c.say) {
				t.Errorf("%s\n%s\nwant %s and %q", got, strings.Join(got.evidence, "\n"), c.counts, c.say)
			}
		})
	}
}

// What need not have arrived may have: a send whose end nobody knows.
func TestUnknownOutcome(t *testing.T) {
	r := honest()
	r.op("alice-4")["outcome"] = unknown
	if got := r.verdict(t); len(got.evidence) > 0 {
		t.Errorf("arrived: %v", got)
	}
	for _, name := range []string{"alice", "bob"} {
		r.drop(name, r.at(name, "alice-4"))
	}
	if got := r.verdict(t); len(got.evidence) > 0 {
		t.Errorf("did not arrive: %v", got)
	}
}

// Who was told that a message was not taken may be told why, and what waits may wait.
func TestGivenUpAndHeld(t *testing.T) {
	r := honest()
	op := r.op("alice-4")
	op["outcome"] = refused
	for _, name := range []string{"alice", "bob"} {
		r.drop(name, r.at(name, "alice-4"))
	}
	r.show("alice", map[string]any{"kind": "held", "reason": "standings_stale"})
	r.show("alice", map[string]any{"kind": "failed", "id": "alice-4", "from": "alice@x.example", "device": device("alice"), "reason": "not_member"})
	if got := r.verdict(t); len(got.evidence) > 0 {
		t.Errorf("%v", got.evidence)
	}
}

// The judge's memory has a bound, and no honest record comes near it.
func TestMemoryIsWatched(t *testing.T) {
	held := make([]byte, 8<<20)
	defer runtime.KeepAlive(held)
	var found uint64
	watchMemory(4<<20, nil, func(bytes uint64) { found = bytes })
	if found < uint64(len(held)) {
		t.Errorf("%d bytes were found, %d are there", found, len(held))
	}
	stop := make(chan struct{})
	close(stop)
	watchMemory(maxHeap, stop, func(bytes uint64) { t.Errorf("%d bytes", bytes) })
}
