// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"valise/internal/stage"
)

// What an official reads when something is wrong, as a script: each error says what
// happened and what to do, and ends with the right status. The script's own command
// "fails STATUS COMMAND…" wants both lines.
func TestErrorsThatAnOfficialReads(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, stage.Config{}, []string{"alice"}, "carol", "dan")
	alice := w.people[0]
	spare := w.newReader("spare", 2)
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "testdata",
			Setup: func(e *testscript.Env) error {
				e.Setenv("PATH", w.Bin+":"+e.Getenv("PATH"))
				e.Setenv("ALICE", alice.Home)
				e.Setenv("PIN", filepath.Join(w.Dir, "pin"))
				e.Setenv("GATEWAY", w.gateway.Address)
				e.Setenv("CARD", fmt.Sprint("piv:?serial=", alice.Card.Serial))
				e.Setenv("SPARE1", fmt.Sprint("piv:?serial=", spare[0].Serial))
				e.Setenv("SPARE2", fmt.Sprint("piv:?serial=", spare[1].Serial))
				e.Defer(func() { // where the script broke off
					stage.Output(context.Background(), nil, filepath.Join(w.Bin, "valise"), "agent", "--stop", "--home", filepath.Join(e.WorkDir, "carol"))
				})
				return nil
			},
			Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
				"fails": wantsRemedy,
				"in-reader": func(ts *testscript.TestScript, _ bool, args []string) {
					r := map[string]*stage.Reader{"alice": alice.Card.Reader, "spare": spare[0].Reader}[args[0]]
					name, socket, _ := strings.Cut(r.Env[0], "=")
					ts.Setenv(name, socket)
				},
				"card": func(ts *testscript.TestScript, _ bool, args []string) {
					do := map[string]func() error{
						"eject":  func() error { return alice.Card.Eject(w.ctx) },
						"insert": func() error { return alice.Card.Insert(w.ctx) },
					}[args[0]]
					ts.Check(do())
				},
				"gateway": func(ts *testscript.TestScript, _ bool, args []string) {
					if args[0] == "kill" {
						w.gateway.Process().Kill()
						return
					}
					ts.Check(w.gateway.Start(w.ctx))
				},
				"invite": func(ts *testscript.TestScript, _ bool, args []string) {
					code, err := w.authority.Invite(w.ctx, args[0]+"@"+domain)
					ts.Check(err)
					ts.Setenv("CODE", code)
				},
			},
		})
	})
}

// wantsRemedy runs a command that must end with a status, and say on standard error
// what happened and what to do about it, and nothing else.
func wantsRemedy(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("%v: %v, want status %d", args[1:], err, want)
	}
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile("stderr"), "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "valise: ") || !strings.HasPrefix(lines[1], "valise: hint: ") {
		ts.Fatalf("%v: not one line with the error and one with the remedy: %q", args[1:], lines)
	}
}
