// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"valise/enroll/ceremony"
	"valise/enroll/desk"
	"valise/internal/testcard"
	"valise/internal/testenv"
	inmemory "valise/internal/testenv/office"
	"valise/policy/bundle"
	"valise/statement"
)

// TestOfficerScripts runs the scripts in testdata/officer: what officers type, with
// four virtual cards and the real desk over TLS. Only what stands behind the desk is
// in memory.
func TestOfficerScripts(t *testing.T) {
	for _, script := range []string{"officers", "roles", "bundle"} {
		t.Run(script, func(t *testing.T) { runOfficers(t, filepath.Join("testdata", "officer", script+".txtar")) })
	}
}

func runOfficers(t *testing.T, script string) {
	config := testcard.Config{Firmware: testcard.Version{Major: 5, Minor: 7, Patch: 1}}
	cards := append(testenv.Reader(t, config, config), testenv.Reader(t, config, config)...)
	valise := testenv.Build(t, "./cmd/valise")
	testscript.Run(t, testscript.Params{
		Files: []string{script},
		Setup: func(e *testscript.Env) error {
			o := inmemory.New(t)
			e.Values["office"] = o
			e.Setenv("PATH", filepath.Dir(valise)+":"+e.Getenv("PATH"))
			e.Setenv("URL", o.Serve(t, func(c *desk.Config) { c.PerSecond, c.Burst = 1000, 1000 }))
			e.Setenv("ROOT", fmt.Sprintf("%x", o.RootHash))
			e.Setenv("XDG_RUNTIME_DIR", e.WorkDir+"/run")
			e.Setenv("PIN", filepath.Join(e.WorkDir, "pin"))
			e.Setenv("WRONGPIN", filepath.Join(e.WorkDir, "wrongpin"))
			for i, who := range []string{"OLGA", "OSKAR", "ADAM", "OTTO"} {
				e.Setenv(who, filepath.Join(e.WorkDir, strings.ToLower(who)))
				e.Setenv(who+"_CARD", fmt.Sprint("piv:?serial=", cards[i].Serial))
				e.Setenv(who+"_KEY", fmt.Sprint("piv:9c?serial=", cards[i].Serial))
			}
			for i, name := range []string{"READER1", "READER2"} {
				_, socket, _ := strings.Cut(cards[2*i].Env()[0], "=")
				e.Setenv(name, socket)
			}
			policies, err := filepath.Abs("../../policies")
			if err != nil {
				return err
			}
			e.Setenv("POLICIES", policies)
			e.Setenv("PCSCLITE_CSOCK_NAME", e.Getenv("READER1"))
			for name, text := range map[string]string{"pin": cards[0].PIN + "\n", "wrongpin": "999999\n"} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o600); err != nil {
					return err
				}
			}
			return os.Mkdir(filepath.Join(e.WorkDir, "run"), 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// appoint APPLICATION FILE: what a ceremony does with an application.
			"appoint": func(ts *testscript.TestScript, _ bool, args []string) {
				a, err := ceremony.ParseApplication([]byte(ts.ReadFile(args[0])))
				ts.Check(err)
				key, err := a.PublicKey()
				ts.Check(err)
				var text bytes.Buffer
				for _, der := range ts.Value("office").(*inmemory.Office).Appoint(t, a.Address.Local(), a.Role, key) {
					ts.Check(pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), text.Bytes(), 0o600))
			},
			// request NAME: somebody wants a certificate.
			"request": func(ts *testscript.TestScript, _ bool, args []string) {
				o := ts.Value("office").(*inmemory.Office)
				o.Enlist(t, args[0])
				r := o.Order(t, args[0])
				ts.Setenv("REQUEST", r.ID)
				ts.Setenv("DEVICE", r.Device.String())
			},
			// verified FILE KIND: a gateway that has the root alone believes the file.
			"verified": func(ts *testscript.TestScript, _ bool, args []string) {
				o := ts.Value("office").(*inmemory.Office)
				s, err := statement.Verify([]byte(ts.ReadFile(args[0])), o.Trust, o.RootHash, time.Now())
				ts.Check(err)
				if string(s.Body.Kind()) != args[1] {
					ts.Fatalf("it is a %s", s.Body.Kind())
				}
			},
			// loads FILE [not]: whether a gateway would take the file for a bundle in force.
			"loads": func(ts *testscript.TestScript, _ bool, args []string) {
				o := ts.Value("office").(*inmemory.Office)
				signed, err := bundle.ParseSigned([]byte(ts.ReadFile(args[0])))
				ts.Check(err)
				_, err = signed.Open(func(raw []byte) (*statement.Statement, error) {
					return statement.Verify(raw, o.Trust, o.RootHash, time.Now())
				}, time.Now())
				if (err == nil) != (len(args) == 1) {
					ts.Fatalf("got %v", err)
				}
			},
			// digest NAME: keeps the digest that the last command printed.
			"digest": func(ts *testscript.TestScript, _ bool, args []string) {
				_, after, ok := strings.Cut(ts.ReadFile("stdout"), "digest: ")
				if !ok {
					ts.Fatalf("no digest in the output")
				}
				ts.Setenv(args[0], strings.Fields(after)[0])
			},
			// sessions N: that many sessions were opened so far.
			"sessions": func(ts *testscript.TestScript, _ bool, args []string) {
				n := 0
				for _, event := range ts.Value("office").(*inmemory.Office).Events() {
					if event == "desk opened" {
						n++
					}
				}
				if fmt.Sprint(n) != args[0] {
					ts.Fatalf("%d sessions were opened", n)
				}
			},
			"dismiss": func(ts *testscript.TestScript, _ bool, args []string) {
				chain, err := readChain(ts.MkAbs(args[0]))
				ts.Check(err)
				o := ts.Value("office").(*inmemory.Office)
				officer, err := o.Trust.Officer(chain, time.Now())
				ts.Check(err)
				o.Dismiss(officer.Leaf.PublicKey)
			},
		},
	})
}
