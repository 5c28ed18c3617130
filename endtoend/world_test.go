// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/internal/stage"
	"valise/internal/testenv"
)

const domain = "interieur.example"

// patience bounds a single test; all together take about two minutes on two cores.
const patience = 4 * time.Minute

// built is the folder of the commands, once a test has asked for it.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// commands builds every command and the demo, as make does; VALISE_BIN names a folder in
// which they are built already.
func commands(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("VALISE_BIN"); dir != "" {
		return dir
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "ve"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", built.dir+"/", "./cmd/...", "./demo/...")
		cmd.Dir = testenv.Root(t)
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// A world is a stage with an authority, a gateway and officials who can write to
// each other.
type world struct {
	*stage.Stage
	t         *testing.T
	ctx       context.Context
	root      string // of the cards' attestation
	authority *stage.Authority
	gateway   *stage.Gateway
	people    []*person
	serial    uint32
	opening   []*correspondence // what was written before a test's own letters
}

// A person is an official with what arrived.
type person struct {
	*stage.Official
	w   *world
	dir string // where `receive` writes

	mu       sync.Mutex
	receiver *stage.Process // guarded by mu
}

// newWorld enrolls people, each with a card in a reader of their own, and unlocks
// their devices.
func newWorld(t *testing.T, cfg stage.Config, names ...string) *world {
	t.Helper()
	return newWorldWith(t, cfg, names)
}

// newWorldWith has more people on the roster.
func newWorldWith(t *testing.T, cfg stage.Config, names []string, roster ...string) *world {
	t.Helper()
	w := emptyWorld(t, cfg, append(roster, names...)...)
	for _, name := range names {
		w.enroll(w.newPerson(name, name, w.newReader(name, 1)[0]))
	}
	w.acquainted()
	return w
}

// emptyWorld has the authority with a roster, and the gateway.
func emptyWorld(t *testing.T, cfg stage.Config, roster ...string) *world {
	t.Helper()
	w := emptyStage(t, cfg)
	w.found(roster...)
	return w
}

// found makes authority and gateway.
func (w *world) found(roster ...string) {
	t := w.t
	t.Helper()
	pem, err := w.RootPEM(w.ctx, w.root)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, name := range roster {
		lines = append(lines, name+"@"+domain+","+name+",Unit,")
	}
	if w.authority, err = w.NewAuthority(w.ctx, "authority", domain, lines, pem); err != nil {
		t.Fatal(err)
	}
	if w.gateway, err = w.NewGateway(w.ctx, w.authority); err != nil {
		t.Fatal(err)
	}
}

// emptyStage has nothing but an attestation root.
func emptyStage(t *testing.T, cfg stage.Config) *world {
	t.Helper()
	testenv.Need(t, "pcscd", "pcscd")
	testenv.Need(t, "/usr/lib*/pcsc/drivers/serial/libifdvpcd.so", "vsmartcard-vpcd")
	testenv.Need(t, "softhsm2-util", "softhsm2")
	if cfg.TokenServers {
		testenv.Need(t, "/usr/libexec/p11-kit/p11-kit-server", "p11-kit")
		testenv.Need(t, "/usr/lib*/*/pkcs11/p11-kit-client.so", "p11-kit-modules")
	}
	cfg.Bin = commands(t)
	st, err := stage.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	w := &world{Stage: st, t: t, ctx: ctx, root: st.AttestationRoot("attestation"), serial: 20000000}
	t.Cleanup(func() {
		cancel()
		w.end()
	})
	if _, err := st.NewCard(ctx, w.root, w.nextSerial()); err != nil { // makes the root
		t.Fatal(err)
	}
	return w
}

func (w *world) nextSerial() uint32 { w.serial++; return w.serial }

// end stops everything, and shows the logs of a test that failed.
func (w *world) end() {
	w.Close()
	if w.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(w.Dir, "logs", "*.log"))
		agents, _ := filepath.Glob(filepath.Join(w.Dir, "*", "agent.log"))
		for _, path := range append(logs, agents...) {
			if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
				w.t.Logf("%s:\n%s", strings.TrimPrefix(path, w.Dir+"/"), data[max(0, len(data)-3000):])
			}
		}
		if os.Getenv("VALISE_KEEP") != "" {
			w.t.Logf("everything is in %s", w.Dir)
			return
		}
	}
	if err := w.Remove(); err != nil {
		w.t.Error(err)
	}
}

// newReader puts new cards into a reader of their own.
func (w *world) newReader(name string, cards int) []*stage.Card {
	w.t.Helper()
	var list []*stage.Card
	for range cards {
		c, err := w.NewCard(w.ctx, w.root, w.nextSerial())
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, c)
	}
	if _, err := w.NewReader(w.ctx, name, list...); err != nil {
		w.t.Fatal(err)
	}
	return list
}

// newPerson prepares a device of somebody on the roster; home names the device.
func (w *world) newPerson(home, name string, card *stage.Card) *person {
	p := &person{Official: w.NewOfficial(home, name+"@"+domain, card), w: w, dir: filepath.Join(w.Dir, "received", home)}
	w.people = append(w.people, p)
	return p
}

func (w *world) enroll(p *person) {
	w.t.Helper()
	if _, err := p.Enroll(w.ctx, w.authority, w.gateway); err != nil {
		w.t.Fatal(err)
	}
	if err := p.Unlock(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// acquainted returns when each device sees all people among the contacts.
func (w *world) acquainted() {
	w.t.Helper()
	for _, p := range w.people {
		w.until(p.Name+" to see everybody", func() (bool, error) {
			out, err := p.Run(w.ctx, "contacts")
			if err != nil {
				return false, nil //nolint:nilerr // not connected yet
			}
			for _, other := range w.people {
				if !strings.Contains(out, other.Address) {
					return false, nil
				}
			}
			return true, nil
		})
	}
}

// until waits for a condition.
func (w *world) until(what string, ask func() (bool, error)) {
	w.t.Helper()
	if err := w.wait(what, ask); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wait(what string, ask func() (bool, error)) error {
	var failed error
	err := within(w.ctx, what, func() bool {
		var ok bool
		ok, failed = ask()
		return ok || failed != nil
	})
	return errors.Join(err, failed)
}

// within waits for a condition for a minute.
func within(ctx context.Context, what string, ask func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := stage.Poll(ctx, what, func() (struct{}, bool, error) { return struct{}{}, ask(), nil })
	return err
}

// must runs a command of a person, and fails the test if it fails.
func (p *person) must(args ...string) string {
	p.w.t.Helper()
	out, err := p.Run(p.w.ctx, args...)
	if err != nil {
		p.w.t.Fatalf("%s: %v", p.Name, err)
	}
	return out
}

// A status is what these tests read of `valise status`.
type status struct {
	Address, Device, Why string
	Unlocked             bool
	Engine               struct {
		Connection struct{ Name, Transport, Node string }
		Queued     int
	}
}

func (p *person) status(ctx context.Context) (st status, err error) {
	out, err := p.Run(ctx, "status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	return st, err
}

// follow starts `valise receive --follow --append`.
func (p *person) follow() error {
	r, err := p.Receive(p.dir)
	p.mu.Lock()
	p.receiver = r
	p.mu.Unlock()
	return err
}

// An event is a line of messages.jsonl, as far as these tests read it.
type event struct {
	Kind, ID, From, Device, Text, Reason, Conversation, Name string
	Members                                                  []struct{ Address, Device string }
	File                                                     *struct{ Name, Path, SHA256, Missing string }
}

// events reads what has been written down completely.
func (p *person) events() ([]event, error) {
	data, err := os.ReadFile(filepath.Join(p.dir, "messages.jsonl"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []event
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", p.Name, err, line)
		}
		out = append(out, e)
	}
	return out, nil
}

// has waits until a text has arrived.
func (p *person) has(text string) {
	p.w.t.Helper()
	p.w.until(fmt.Sprintf("%s to read %q", p.Name, text), func() (bool, error) { return p.read(text) })
}

func (p *person) read(text string) (bool, error) {
	list, err := p.events()
	for _, e := range list {
		if e.Text == text {
			return true, nil
		}
	}
	return false, err
}

// audit reads an audit stream.
func audit(t *testing.T, path string) (lines []map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var l map[string]any
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v: %s", path, err, line)
		}
		lines = append(lines, l)
	}
	return lines
}
