// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/testenv"
	"valise/policy"
	"valise/policy/rules"
)

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// An opinion is what the other implementation says.
type opinion struct {
	Valid    bool
	Decision string
	Reasons  []string
	Errors   []string
}

// judge starts the other implementation of Cedar and returns a way to ask it.
func judge(t *testing.T) func(texts map[string]string, q *rules.Request) opinion {
	t.Helper()
	line := append(testenv.Node(t, "policy/rules/node"), "judge.mjs")
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the judge: %v", err)
		}
	})
	return func(texts map[string]string, q *rules.Request) opinion {
		t.Helper()
		ask := map[string]any{"policies": texts, "schema": string(rules.Schema)}
		if q != nil {
			entities, request := q.Cedar()
			ask["entities"], ask["request"] = entities, request
		}
		data, err := json.Marshal(ask)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(append(data, '\n')); err != nil {
			t.Fatal(err)
		}
		answer, err := out.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var o opinion
		if err := json.Unmarshal(answer, &o); err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
		return o
	}
}

const permitAll = "permit (principal, action, resource);"

// The reference implementation decides every random request under random rules
// as this package does.
func TestSameDecisionsAsCedarWasm(t *testing.T) {
	ask := judge(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	granted, refused, failed := 0, 0, 0
	clearances := heldClearances(t)
	for range 400 {
		texts, all := map[string]string{"": permitAll}, ""
		for i := range 1 + rnd.IntN(3) {
			name := fmt.Sprintf("r%d", i)
			text := fmt.Sprintf("@id(%q)\n%s\n", name, randomRule(rnd))
			texts[name] = text
			all += text
		}
		r := compile(t, all)
		q := randomRequest(t, rnd, clearances)
		got, want := r.Decide(q), ask(texts, q)
		if !want.Valid {
			t.Fatalf("the judge finds fault with rules that were compiled:\n%s", all)
		}
		ok := want.Decision == "allow" && len(want.Errors) == 0
		same := got.Granted == ok
		switch {
		case len(want.Errors) > 0:
			same = same && got.Reason == rules.ReasonRuleError && slices.Equal(got.Rules, want.Errors)
			failed++
		case ok:
			granted++
		default:
			same = same && got.Reason == rules.ReasonRule && slices.Equal(got.Rules, want.Reasons)
			refused++
		}
		if !same {
			t.Fatalf("got %+v, the judge says %+v to\n%s\nabout %+v", got, want, all, q)
		}
	}
	if granted < 20 || refused < 20 || failed < 5 {
		t.Errorf("%d granted, %d refused, %d failed: the random rules test too little", granted, refused, failed)
	}
}

// What one validator refuses, so does the other.
func TestSameValidationAsCedarWasm(t *testing.T) {
	ask := judge(t)
	for _, c := range []struct {
		condition string
		valid     bool
	}{
		{`resource.tier == "hardware"`, true},
		{`resource.colour == "red"`, false},
		{`resource.tier == 3`, false},
		{`context.label.mark == ""`, false},
		{`context has label && context.label.mark == ""`, true},
		{`resource.clearance.classes.contains("A")`, false},
		{`resource has clearance && resource.clearance.classes.contains("A")`, true},
		{`resource has clearance && resource.clearance.classes.contains(3)`, false},
		{`context.members`, false},
		{`principal in Device::"x"`, true},
		{`principal in Group::"x"`, false},
	} {
		text := `@id("a") forbid (principal, action == Action::"send", resource) when { ` + c.condition + " };"
		_, err := rules.Compile([]byte(text), rules.Schema)
		if o := ask(map[string]string{"a": text}, nil); (err == nil) != c.valid || o.Valid != c.valid {
			t.Errorf("%s: want valid %v, got %v, the judge says %v", c.condition, c.valid, err, o.Valid)
		}
	}
}

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

func randomRule(rnd *rand.Rand) string {
	scope := pick(rnd, "action", `action == Action::"send"`, `action == Action::"join"`, `action in [Action::"send", Action::"join"]`)
	text := "forbid (principal, " + scope + ", resource)"
	for range 1 + rnd.IntN(2) {
		text += fmt.Sprintf("\n%s { %s }", pick(rnd, "when", "unless"), randomCondition(rnd, 2))
	}
	return text + ";"
}

func randomCondition(rnd *rand.Rand, depth int) string {
	if depth > 0 && rnd.IntN(2) == 0 {
		a, b := randomCondition(rnd, depth-1), randomCondition(rnd, depth-1)
		return pick(rnd, "("+a+" && "+b+")", "("+a+" || "+b+")", "!("+a+")", "(if "+a+" then "+b+" else true)")
	}
	end := pick(rnd, "principal", "resource")
	return pick(rnd,
		end+`.tier == "witnessed"`, end+`.domain == "interieur.example"`, `principal.domain != resource.domain`, end+`.address like "b*@*"`,
		`(context has label && context.label.classification == "SECRET")`,
		`(context has label && context.label.categories.contains("1.2.3.1/Release/FRA"))`,
		`(context has label && context.label.categories.containsAny(["1.2.3.1/Release/FRA", "1.2.3.1/Release/DEU"]))`,
		`(context has label && context.label.policy == "1.2.3")`, `(context has label && context.label.mark == "")`,
		`(`+end+` has clearance && `+end+`.clearance.classes.contains("RED"))`,
		`(`+end+` has clearance && `+end+`.clearance.classes.containsAll(["CLEAR", "GREEN"]))`,
		`context.members > 5`, `context.members * 4611686018427387904 > 1`, `context.members - 9 < 0`,
	)
}

// heldClearances are those of random devices: none, some, all.
func heldClearances(t *testing.T) []*policy.Clearance {
	t.Helper()
	all := []*policy.Clearance{nil}
	set := tlp(t)
	for _, class := range []string{"GREEN", "RED"} {
		c, err := set.Issue(policy.Grant{Policy: tlpID(t), UpTo: class}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := set.Clearance(c)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, compiled)
	}
	return all
}

func randomRequest(t *testing.T, rnd *rand.Rand, clearances []*policy.Clearance) *rules.Request {
	q := request(t)
	q.Action = pick(rnd, rules.Send, rules.Join)
	q.Precedence = pick(rnd, "routine", "flash")
	q.Members = pick(rnd, 1, 2, 9, 100)
	for _, d := range []*rules.Device{&q.Sender, &q.Recipient} {
		d.Tier = pick(rnd, identity.TierHardware, identity.TierWitnessed)
		d.Clearance = clearances[rnd.IntN(len(clearances))]
		d.Address = address(t, pick(rnd, "alice@interieur.example", "bob@interieur.example", "bea@elsewhere.example"))
	}
	q.Label = pick(rnd, q.Label, nil, &policy.Label{Policy: oid(t, "1.2.4"), Classification: "OPEN", Mark: "personal"},
		&policy.Label{Policy: oid(t, "1.2.3"), Classification: "SECRET", Categories: []policy.Category{{Set: oid(t, "1.2.3.1"), Tag: "Release", Name: "DEU"}}})
	return q
}
