// SPDX-License-Identifier: Apache-2.0

package patroni

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// example is a member's configuration as an operator would write it.
func example() *settings {
	return &settings{
		name: "db1", host: "db1.interieur.example", rest: 8008, postgres: 5432,
		etcd: []string{"etcd1.interieur.example:2379", "etcd2.interieur.example:2379", "etcd3.interieur.example:2379"},
		data: "/var/lib/postgresql/15/valise", programs: "/usr/lib/postgresql/15/bin", password: "…", clients: "192.0.2.0/24",
	}
}

// What the operators' document shows is what the clusters of the soak are made with, but for
// names and addresses.
func TestDocumentShowsWhatIsTested(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := example().yaml()
	if !strings.Contains(string(text), "```yaml\n"+want+"```\n") {
		t.Errorf("docs/operate.md does not show this:\n%s", want)
	}
}

// The control waits for no standby, and the other interface of etcd is another word; nothing
// else differs.
func TestControlDiffersInOneProperty(t *testing.T) {
	one, control, newer := example(), example(), example()
	control.asynchronous, newer.version3 = true, true
	honest := one.yaml()
	if got := strings.NewReplacer("synchronous_mode: false", "synchronous_mode: true", "synchronous_mode_strict: false", "synchronous_mode_strict: true").Replace(control.yaml()); got != honest || control.yaml() == honest {
		t.Errorf("the control:\n%s", control.yaml())
	}
	if got := strings.Replace(newer.yaml(), "etcd3:", "etcd:", 1); got != honest || newer.yaml() == honest {
		t.Errorf("with version 3:\n%s", newer.yaml())
	}
}

func TestSettled(t *testing.T) {
	honest := func() *view {
		v := new(view)
		for i, role := range []string{"leader", "sync_standby", "replica"} {
			v.Members = append(v.Members, struct {
				Name, Role, State string
				Timeline          int
				Lag               any
			}{string(rune('a' + i)), role, "running", 4, float64(0)})
		}
		return v
	}
	if !honest().settled(true) {
		t.Error("the control")
	}
	for name, change := range map[string]func(v *view){
		"one is missing":            func(v *view) { v.Members = v.Members[:2] },
		"nobody may take over":      func(v *view) { v.Members[1].Role = "replica" },
		"one is on another history": func(v *view) { v.Members[2].Timeline = 3 },
		"one is starting":           func(v *view) { v.Members[2].State = "starting" },
		"one is far behind":         func(v *view) { v.Members[2].Lag = float64(1 << 30) },
		"nobody knows where one is": func(v *view) { v.Members[1].Lag = "unknown" },
		"no primary":                func(v *view) { v.Members[0].Role = "replica" },
	} {
		v := honest()
		change(v)
		if v.settled(true) {
			t.Errorf("%s: settled", name)
		}
	}
}
