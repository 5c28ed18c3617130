// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"valise/enroll/desk/call"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

const foundingName = "Founding of interieur.example"

// TestOfficersOfAnAuthority runs the same commands against the real authority, from
// the applications to an audit from outside: keys in SoftHSM, seven virtual cards,
// nothing in memory.
func TestOfficersOfAnAuthority(t *testing.T) {
	root, err := testcard.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	config := testcard.Config{Firmware: testcard.Version{Major: 5, Minor: 7, Patch: 1}, Root: root}
	people := []string{"olga", "oskar", "adam", "ada", "otto", "alice", "nadia"}
	var cards []*testenv.CardReader
	for len(cards) < len(people) {
		cards = append(cards, testenv.Reader(t, config, config)...)
	}
	token := testenv.SoftHSM(t)
	o := &office{t: t, dir: testenv.ShortDir(t), bin: map[string]string{}, env: append(os.Environ(), token.Env()...)}
	for _, name := range []string{"valise", "valise-enrolld"} {
		o.bin[name] = testenv.Build(t, "./cmd/"+name)
	}
	t.Cleanup(o.stop)
	authority, admin := freePort(t), freePort(t)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pin", cards[0].PIN+"\n")
	write("vendor.pem", string(root.PEM()))
	write("enrolld.toml", fmt.Sprintf(`domain = "interieur.example"
url = "https://%s"
listen = "%s"
data = "authority"
audit = "enrolld-audit.jsonl"
admin = "%s"
[token]
uri = "%s"
pin-source = "%s"
`, authority, authority, admin, token.URI(), token.PINFile))
	plan := fmt.Sprintf("name = %q\ndate = %q\ndomain = \"interieur.example\"\n[tokens]\nroot = %q\nissuing = %q\n[endorsements]\nbuilt-in = false\nroots = [\"vendor.pem\"]\n",
		foundingName, time.Now().Format(time.DateOnly), token.Label, token.Label)
	for _, who := range [][2]string{{"olga", "officer"}, {"oskar", "officer"}, {"adam", "administrator"}, {"ada", "administrator"}, {"otto", "auditor"}} {
		plan += fmt.Sprintf("[[officers]]\naddress = \"%s@interieur.example\"\nrole = %q\napplication = \"%s.application\"\n", who[0], who[1], who[0])
	}
	write("plan.toml", plan)

	testscript.Run(t, testscript.Params{
		Files: []string{filepath.Join("testdata", "officer", "authority.txtar")},
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(o.bin["valise"])+":"+e.Getenv("PATH"))
			e.Setenv("URL", "https://"+authority)
			e.Setenv("OFFICE", o.dir)
			e.Setenv("DATA", filepath.Join(o.dir, "authority"))
			e.Setenv("FOUNDING", foundingName)
			e.Setenv("PIN", filepath.Join(o.dir, "pin"))
			e.Setenv("XDG_RUNTIME_DIR", "")
			for i, who := range people {
				name := strings.ToUpper(who)
				e.Setenv(name, filepath.Join(e.WorkDir, who))
				e.Setenv(name+"_CARD", fmt.Sprint("piv:?serial=", cards[i].Serial))
				e.Setenv(name+"_KEY", fmt.Sprint("piv:9c?serial=", cards[i].Serial))
				_, socket, _ := strings.Cut(cards[i].Env()[0], "=")
				e.Setenv(name+"_READER", socket)
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// insert NAME: the computer at which this person sits.
			"insert": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv("PCSCLITE_CSOCK_NAME", ts.Getenv(strings.ToUpper(args[0])+"_READER"))
			},
			// found: the ceremony, and the authority begins to serve.
			"found": func(*testscript.TestScript, bool, []string) {
				o.run("valise-enrolld", "init", "--config", filepath.Join(o.dir, "enrolld.toml"), "--ceremony", filepath.Join(o.dir, "plan.toml"))
				o.serve("valise-enrolld", filepath.Join(o.dir, "enrolld.toml"))
				o.await("http://" + admin + "/healthz")
			},
			// await-request HOME: a request waits; REQUEST and DEVICE are its number and device.
			"await-request": func(ts *testscript.TestScript, _ bool, args []string) {
				deadline := time.Now().Add(30 * time.Second)
				for {
					cmd := exec.Command(o.bin["valise"], "officer", "requests", "--json", "--home", args[0], "--pin-file", ts.Getenv("PIN"))
					cmd.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+ts.Getenv("PCSCLITE_CSOCK_NAME"), "XDG_RUNTIME_DIR=")
					out, err := cmd.Output()
					var r call.Request
					if err == nil && json.Unmarshal(out, &r) == nil && r.ID != "" {
						ts.Setenv("REQUEST", r.ID)
						ts.Setenv("DEVICE", r.Device.String())
						return
					}
					if time.Now().After(deadline) {
						ts.Fatalf("nobody waits: %s, %v", out, err)
					}
					time.Sleep(100 * time.Millisecond)
				}
			},
			// keep NAME: the last command's output.
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
			"digest": func(ts *testscript.TestScript, _ bool, args []string) {
				_, after, ok := strings.Cut(ts.ReadFile("stdout"), "digest: ")
				if !ok {
					ts.Fatalf("no digest in the output")
				}
				ts.Setenv(args[0], strings.Fields(after)[0])
			},
		},
	})
}
