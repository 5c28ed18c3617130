// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"valise/internal/freeport"
	"valise/internal/testcard"
	"valise/internal/testenv"
)

// office is an authority and a gateway, as real as they get here: both daemons, their
// keys in SoftHSM, two virtual cards in a reader of their own.
type office struct {
	t       *testing.T
	dir     string
	env     []string
	gateway string
	cards   []*testenv.CardReader
	token   *testenv.Token // the daemons' keys
	bin     map[string]string
	serving []*exec.Cmd
}

// freePort is an address on which the daemons can be started again and again.
func freePort(t *testing.T) string {
	t.Helper()
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func newOffice(t *testing.T) *office { return newOfficeFor(t, nil, "") }

// newOfficeFor makes an office whose authority also trusts these roots, with more in
// its configuration.
func newOfficeFor(t *testing.T, roots []byte, more string) *office {
	t.Helper()
	config := testcard.Config{Firmware: testcard.Version{Major: 5, Minor: 7, Patch: 1}}
	o := &office{t: t, dir: testenv.ShortDir(t), bin: map[string]string{}, cards: testenv.Reader(t, config, config)}
	token := testenv.SoftHSM(t)
	o.token = token
	o.env = append(append(os.Environ(), token.Env()...), o.cards[0].Env()...)
	for _, name := range []string{"valise", "valise-enrolld", "valise-gatewayd"} {
		o.bin[name] = testenv.Build(t, "./cmd/"+name)
	}
	authority, admin := freePort(t), freePort(t)
	o.gateway = freePort(t)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("card-roots.pem", string(o.cards[0].RootPEM)+string(roots))
	write("people.csv", "address,name,unit,clearance\nalice@interieur.example,Alice,A,\nbob@interieur.example,Bob,B,\n")
	write("pin", o.cards[0].PIN+"\n")
	write("enrolld.toml", fmt.Sprintf(`domain = "interieur.example"
url = "https://%s"
listen = "%s"
data = "authority"
audit = "enrolld-audit.jsonl"
admin = "%s"
[token]
uri = "%s"
pin-source = "%s"
[endorsements]
built-in = false
roots = ["card-roots.pem"]
%s`, authority, authority, admin, token.URI(), token.PINFile, more))
	write("gatewayd.toml", fmt.Sprintf(`listen = ["%s"]
name = "127.0.0.1"
domain = "interieur.example"
roots = "root.pem"
key = "%s"
pin_source = "%s"
certificate = "gateway.pem"
data = "relay"
audit = "gatewayd-audit.jsonl"
[authority]
url = "https://%s"
`, o.gateway, token.URI("object=gateway"), token.PINFile, authority))
	enrolld, gatewayd := filepath.Join(o.dir, "enrolld.toml"), filepath.Join(o.dir, "gatewayd.toml")
	o.run("valise-enrolld", "init", "--config", enrolld)
	o.run("valise-enrolld", "roster", "import", "--config", enrolld, filepath.Join(o.dir, "people.csv"))
	write("root.pem", o.run("valise-enrolld", "root", "--config", enrolld))
	write("gateway.csr", o.run("valise-gatewayd", "csr", "--config", gatewayd))
	write("gateway.pem", o.run("valise-enrolld", "gateway-cert", "--config", enrolld, "--csr", filepath.Join(o.dir, "gateway.csr"), "--name", "127.0.0.1"))
	o.serve("valise-enrolld", enrolld)
	o.serve("valise-gatewayd", gatewayd)
	o.await("http://" + admin + "/healthz")
	t.Cleanup(o.stop)
	return o
}

func (o *office) run(name string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command(o.bin[name], args...)
	cmd.Env, cmd.Dir = o.env, o.dir
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("%s %v: %v\n%s", name, args, err, problems.Bytes())
	}
	return string(out)
}

func (o *office) serve(name, config string) *exec.Cmd {
	o.t.Helper()
	log, err := os.OpenFile(filepath.Join(o.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		o.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(o.bin[name], "serve", "--config", config)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = o.env, o.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.serving = append(o.serving, cmd)
	return cmd
}

// await polls until the authority answers.
func (o *office) await(url string) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			o.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(o.dir, "valise-enrolld.log"))
			o.t.Fatalf("the authority does not answer: %v\n%s", err, log)
		}
	}
}

func (o *office) stop() {
	for _, cmd := range o.serving {
		cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range o.serving {
		cmd.Wait()
	}
	if o.t.Failed() {
		for _, name := range []string{"valise-enrolld.log", "valise-gatewayd.log", "enrolld-audit.jsonl", "gatewayd-audit.jsonl"} {
			log, _ := os.ReadFile(filepath.Join(o.dir, name))
			o.t.Logf("%s:\n%s", name, log)
		}
	}
}

// restartGateway kills the gateway with -9 and starts it again.
func (o *office) restartGateway() {
	old := o.serving[len(o.serving)-1]
	old.Process.Kill()
	old.Wait()
	o.serving = o.serving[:len(o.serving)-1]
	o.serve("valise-gatewayd", filepath.Join(o.dir, "gatewayd.toml"))
}

// TestScripts runs the scripts in testdata: what an official types, on real parts.
func TestScripts(t *testing.T) {
	o := newOffice(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(o.bin["valise"])+":"+filepath.Dir(o.bin["valise-enrolld"])+":"+e.Getenv("PATH"))
			for _, pair := range append(o.cards[0].Env(), o.env[len(o.env)-2]) {
				name, value, _ := strings.Cut(pair, "=")
				e.Setenv(name, value)
			}
			e.Setenv("GATEWAY", o.gateway)
			e.Setenv("PIN", filepath.Join(o.dir, "pin"))
			e.Setenv("AUTHORITY", filepath.Join(o.dir, "enrolld.toml"))
			e.Setenv("CARD1", fmt.Sprint("piv:?serial=", o.cards[0].Serial))
			e.Setenv("CARD2", fmt.Sprint("piv:?serial=", o.cards[1].Serial))
			for _, who := range []string{"alice", "bob"} {
				home := filepath.Join(e.WorkDir, who)
				e.Setenv(strings.ToUpper(who), home)
				e.Defer(func() {
					stop := exec.Command(o.bin["valise"], "agent", "--stop", "--home", home)
					stop.Env = o.env
					stop.Run()
					if log, err := os.ReadFile(filepath.Join(home, logFile)); err == nil && t.Failed() {
						t.Logf("agent of %s:\n%s", who, log)
					}
				})
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"card": func(ts *testscript.TestScript, _ bool, args []string) {
				c := o.cards[map[string]int{"alice": 0, "bob": 1}[args[1]]]
				switch args[0] {
				case "eject":
					c.Eject(t)
				case "insert":
					c.Insert(t)
				default:
					ts.Fatalf("card eject|insert")
				}
			},
			"restart-gateway": func(*testscript.TestScript, bool, []string) { o.restartGateway() },
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				if err := awaitText(ts.MkAbs(args[0]), args[1]); err != nil {
					ts.Fatalf("%v", err)
				}
			},
			"count": func(ts *testscript.TestScript, _ bool, args []string) {
				data := ts.ReadFile(args[0])
				if n := strings.Count(data, args[1]); fmt.Sprint(n) != args[2] {
					ts.Fatalf("%s holds %q %d times, want %s:\n%s", args[0], args[1], n, args[2], data)
				}
			},
		},
	})
}

// awaitText polls until a file that another process writes holds a text.
func awaitText(path, text string) error {
	deadline := time.Now().Add(time.Minute)
	for {
		data, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(data), text) {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s does not hold %q:\n%s", path, text, data), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
