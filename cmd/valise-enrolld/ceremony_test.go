// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll/ceremony"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/internal/testenv"
	"valise/ledger"
	"valise/manifest"
	"valise/record"
)

const ceremonyName = "Founding of interieur.example"

// newToken makes one more SoftHSM token, under the test's own configuration.
func newToken(t *testing.T, k *testenv.Token, label string) {
	t.Helper()
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", k.PIN, "--so-pin", k.SOPIN).CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
}

// destroyToken is what a fire does to an HSM.
func destroyToken(t *testing.T, label string) {
	t.Helper()
	out, err := exec.Command("softhsm2-util", "--delete-token", "--token", label).CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
}

// amend replaces a part of the configuration.
func (b *bureau) amend(old, text string) {
	b.t.Helper()
	data, err := os.ReadFile(b.config)
	if err != nil || !strings.Contains(string(data), old) {
		b.t.Fatalf("the configuration lacks %q (%v)", old, err)
	}
	b.write("enrolld.toml", strings.Replace(string(data), old, text, 1))
}

// newCourt is a bureau with two tokens: the root's apart.
func newCourt(t *testing.T) (*bureau, *testenv.Token) {
	t.Helper()
	k := testenv.SoftHSM(t)
	b := newBureau(t, k, k.PINFile)
	newToken(t, k, "safe")
	pin := filepath.Join(b.dir, "root.pin")
	b.write("root.pin", k.PIN+"\n")
	b.amend("[endorsements]", fmt.Sprintf("[root-token]\nuri = %q\npin-source = %q\n[endorsements]", strings.Replace(k.URI(), k.Label, "safe", 1), pin))
	return b, k
}

// officers are the people of an honest ceremony.
var officers = []struct {
	name string
	role identity.Role
}{
	{"olga", identity.RoleOfficer},
	{"omar", identity.RoleOfficer},
	{"ada", identity.RoleAdministrator},
	{"alan", identity.RoleAdministrator},
	{"aude", identity.RoleAuditor},
}

// apply writes an officer's application; change makes it a dishonest one.
func (b *bureau) apply(name string, role identity.Role, change func(*enrolltest.CardConfig, *ceremony.Occasion, *enrolltest.Vendor)) *enrolltest.Card {
	b.t.Helper()
	cfg := enrolltest.CardConfig{Curve: elliptic.P384(), Slot: "9c", PINPolicy: byte(attest.PINAlways)}
	occasion, vendor := ceremony.Founding(ceremonyName), *b.vendor
	if change != nil {
		change(&cfg, &occasion, &vendor)
	}
	card := vendor.Card(b.t, cfg)
	address, err := identity.ParseAddress(name + "@" + domain)
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := ceremony.Apply(occasion, address, role, card.Key, card.Evidence)
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := a.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(name+".json", string(data))
	return card
}

func (b *bureau) plan(issuing string) string {
	text := fmt.Sprintf("name = %q\ndate = %q\ndomain = %q\n[tokens]\nroot = \"safe\"\nissuing = %q\n[endorsements]\nbuilt-in = false\nroots = [\"vendor.pem\"]\n",
		ceremonyName, time.Now().Format(time.DateOnly), domain, issuing)
	for _, o := range officers {
		text += fmt.Sprintf("[[officers]]\naddress = \"%s@%s\"\nrole = %q\napplication = \"%s.json\"\n", o.name, domain, o.role, o.name)
	}
	return text
}

// holdCeremony founds an authority with officers and returns their cards.
func (b *bureau) holdCeremony(k *testenv.Token) map[string]*enrolltest.Card {
	b.t.Helper()
	cards := make(map[string]*enrolltest.Card)
	for _, o := range officers {
		cards[o.name] = b.apply(o.name, o.role, nil)
	}
	b.write("plan.toml", b.plan(k.Label))
	b.must("init", "--ceremony", filepath.Join(b.dir, "plan.toml"))
	return cards
}

func (b *bureau) file(name string) []byte {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, "data", name))
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// store opens the database while no daemon runs.
func (b *bureau) store() *authority.Store {
	b.t.Helper()
	s, err := authority.OpenExisting(b.t.Context(), filepath.Join(b.dir, "data", databaseFile))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { s.Close() })
	return s
}

// replay judges the ledger as an auditor does, and returns what follows from it.
func (b *bureau) replay() (*record.State, []ledger.Item) {
	b.t.Helper()
	var items []ledger.Item
	var head ledger.Head
	store := b.store()
	err := store.View(b.t.Context(), func(tx *authority.Tx) (err error) {
		if items, err = tx.Items(0, 10000); err == nil {
			head, err = tx.LedgerHead()
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	store.Close()
	root := b.root()
	state := record.New(root)
	for _, i := range items {
		if err := state.Apply(i); err != nil {
			b.t.Fatalf("leaf %d: %v", i.Index, err)
		}
	}
	if state.Head() != head {
		b.t.Errorf("the tree is %v, its leaves make %v", head, state.Head())
	}
	return state, items
}

func TestCeremony(t *testing.T) {
	b, k := newCourt(t)
	cards := b.holdCeremony(k)
	root := b.root()

	founding, err := manifest.ParseFounding(b.file(foundingFile), root)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := os.ReadFile(filepath.Join(b.dir, "plan.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if founding.Lone() || founding.Ceremony != sha256.Sum256(plan) || len(founding.Officers) != len(officers) ||
		founding.Profiles[0].Approvals != 2 || !strings.Contains(string(founding.Endorsements), "CERTIFICATE") {
		t.Errorf("founding = %+v", founding)
	}
	first, err := manifest.ParseManifest(b.file(manifestFile), root)
	if err != nil || first.Number != 1 {
		t.Fatalf("manifest = %+v, %v", first, err)
	}

	state, items := b.replay()
	kinds := []ledger.Kind{ledger.KindFounding, ledger.KindManifest}
	for range officers {
		kinds = append(kinds, ledger.KindIssuance)
	}
	if !slices.EqualFunc(items, kinds, func(i ledger.Item, k ledger.Kind) bool { return i.Entry.Kind == k }) {
		t.Errorf("the ledger begins with %d leaves of other kinds", len(items))
	}
	for _, o := range officers {
		address, _ := identity.ParseAddress(o.name + "@" + domain)
		got, ok := state.OfficerAt(address)
		if !ok || got.Role != o.role || got.Key != cards[o.name].ID(t) {
			t.Errorf("%s is %+v", o.name, got)
		}
		chain := pemChain(t, b.file(officerFile(address)))
		proven, err := state.Trust().Officer(chain, time.Now())
		if err != nil || proven.Address != address || proven.Role != o.role || proven.Tier != identity.TierHardware {
			t.Errorf("%s's certificate proves %+v, %v", o.name, proven, err)
		}
	}
	checkpoint := b.checkpoint()
	v, err := ledger.Verifier(first.Origin, first.Ledger[0].Public)
	if err != nil {
		t.Fatal(err)
	}
	if head, err := ledger.OpenCheckpoint(checkpoint, v); err != nil || head != state.Head() {
		t.Errorf("the first checkpoint: %v, %v", head, err)
	}

	text := b.file(recordFile)
	if _, err := ceremony.CheckRecord(text); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		fmt.Sprintf("%x", sha256.Sum256(plan)), identity.Fingerprint(root), fmt.Sprintf("%x", sha256.Sum256(b.file(foundingFile))),
		fmt.Sprintf("%x", sha256.Sum256(b.file(manifestFile))), fmt.Sprintf("%x", [32]byte(state.Head().Hash)), cards["omar"].ID(t).String(), `"safe"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the record of the ceremony lacks %s:\n%s", want, text)
		}
	}
	b.audit("authority founded")

	// With the root in the safe everything goes on.
	if err := os.Remove(filepath.Join(b.dir, "root.pin")); err != nil {
		t.Fatal(err)
	}
	destroyToken(t, "safe")
	b.start()
	if out := b.must("list"); strings.Count(out, "officer") != len(officers) || strings.Contains(out, "not signed") {
		t.Errorf("list printed\n%s", out)
	}
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if _, err := b.run("init", "--ceremony", filepath.Join(b.dir, "plan.toml")); err == nil || !strings.Contains(err.Error(), "made before") {
		t.Errorf("a second founding: %v", err)
	}
	if out := b.must("manifest", "show"); !strings.Contains(out, "manifest 1 of "+domain) || strings.Count(out, "in use") != 3 {
		t.Errorf("manifest show printed\n%s", out)
	}
}

func pemChain(t *testing.T, text []byte) [][]byte {
	t.Helper()
	var chain [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	if len(chain) != 2 {
		t.Fatalf("%d certificates", len(chain))
	}
	return chain
}

// checkpoint is the newest one in the database.
func (b *bureau) checkpoint() []byte {
	b.t.Helper()
	var c authority.Checkpoint
	store := b.store()
	defer store.Close()
	if err := store.View(b.t.Context(), func(tx *authority.Tx) (err error) { c, err = tx.LatestCheckpoint(); return err }); err != nil {
		b.t.Fatal(err)
	}
	return c.Note
}

// A ceremony that would go wrong makes no key. Each case differs in one thing from
// the honest ceremony at the end, which takes place in the same tokens.
func TestCeremonyIsRefused(t *testing.T) {
	b, k := newCourt(t)
	path := filepath.Join(b.dir, "plan.toml")
	stranger := enrolltest.NewVendor(t)
	plan := func(old, new string) func() {
		return func() {
			text := b.plan(k.Label)
			if !strings.Contains(text, old) {
				t.Fatalf("the plan lacks %q", old)
			}
			b.write("plan.toml", strings.Replace(text, old, new, 1))
		}
	}
	card := func(change func(*enrolltest.CardConfig, *ceremony.Occasion, *enrolltest.Vendor)) func() {
		return func() { b.apply("omar", identity.RoleOfficer, change) }
	}
	for _, c := range []struct {
		name, want string
		spoil      func()
	}{
		{"PIN once", "pin_policy", card(func(c *enrolltest.CardConfig, _ *ceremony.Occasion, _ *enrolltest.Vendor) {
			c.PINPolicy = byte(attest.PINOnce)
		})},
		{"slot 9a", "slot", card(func(c *enrolltest.CardConfig, _ *ceremony.Occasion, _ *enrolltest.Vendor) { c.Slot = "9a" })},
		{"unknown vendor", "unknown_root", card(func(_ *enrolltest.CardConfig, _ *ceremony.Occasion, v *enrolltest.Vendor) { *v = *stranger })},
		{"another ceremony", "another occasion", card(func(_ *enrolltest.CardConfig, o *ceremony.Occasion, _ *enrolltest.Vendor) {
			*o = ceremony.Founding("Founding of elsewhere")
		})},
		{"an appointment", "another occasion", card(func(_ *enrolltest.CardConfig, o *ceremony.Occasion, _ *enrolltest.Vendor) {
			*o = ceremony.Appointment(ceremonyName)
		})},
		{"another role", "and the plan says", func() { b.apply("omar", identity.RoleAuditor, nil) }},
		{"somebody else's application", "and the plan says", func() { b.write("omar.json", b.text("olga.json")) }},
		{"no application", "no such file", func() { os.Remove(filepath.Join(b.dir, "omar.json")) }},
		{"one officer", "at least 2", plan(`omar@interieur.example"`+"\nrole = \"officer\"", `omar@interieur.example"`+"\nrole = \"auditor\"")},
		{"one administrator", "administrator alone", plan(`alan@interieur.example"`+"\nrole = \"administrator\"", `alan@interieur.example"`+"\nrole = \"auditor\"")},
		{"two roles", "named twice", plan("aude@", "olga@")},
		{"yesteryear", "agree on a date", plan(time.Now().Format(time.DateOnly), "2020-01-01")},
		{"another domain", "configuration for", func() {
			b.write("plan.toml", strings.ReplaceAll(b.plan(k.Label), domain, "elsewhere.example"))
		}},
		{"another token", "configuration opens", plan(k.Label, "valise")},
		{"another root token", "configuration opens", plan("\"safe\"", "\"box\"")},
		{"looser officers", "every time", plan("[endorsements]", "[officer-appraisal]\npin_policies = [\"once\"]\n[endorsements]")},
	} {
		for _, o := range officers {
			b.apply(o.name, o.role, nil)
		}
		b.write("plan.toml", b.plan(k.Label))
		c.spoil()
		_, err := b.run("init", "--ceremony", path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := os.Stat(filepath.Join(b.dir, "data")); err == nil {
			t.Fatalf("%s: something was made", c.name)
		}
	}
	b.holdCeremony(k) // control: also the labels were free
}

func (b *bureau) text(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// A founding that stopped half way is recognized, and doing what it says helps.
func TestInterruptedFounding(t *testing.T) {
	b, k := newCourt(t)
	b.amend("data = \"data\"", "data = \"data\"\ndatabase = \"nowhere/authority.db\"") // found out after the keys were made
	_, err := b.run("init")
	if err == nil || !strings.Contains(err.Error(), "not finished") || !strings.Contains(err.Error(), "valise-ledger") {
		t.Fatalf("init: %v", err)
	}
	b.amend("\ndatabase = \"nowhere/authority.db\"", "")
	if _, err := b.run("init"); err == nil || !strings.Contains(err.Error(), "not finished") {
		t.Errorf("init again: %v", err)
	}
	if _, err := b.run("serve"); err == nil || !strings.Contains(err.Error(), "did not finish") {
		t.Errorf("serve: %v", err)
	}
	// As it says: other labels, and the directory removed.
	if err := os.RemoveAll(filepath.Join(b.dir, "data")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run("init"); err == nil || !strings.Contains(err.Error(), "in the token already") {
		t.Errorf("init over the keys: %v", err)
	}
	b.amend("[token]", "[token]\nroot-key = \"r\"\nissuer-key = \"i\"\ntls-key = \"t\"\nbulletin-key = \"b\"\nledger-key = \"l\"")
	b.holdCeremony(k)
	b.start()
}

// Without a ceremony the authority says under its root's signature that it is alone.
func TestLoneFounding(t *testing.T) {
	k := testenv.SoftHSM(t)
	b := newBureau(t, k, k.PINFile)
	out := b.must("init")
	if lines := strings.Split(out, "\n"); len(lines) != 4 || lines[0] != "authority of "+domain || !strings.HasPrefix(lines[1], "root sha256 ") {
		t.Errorf("init printed\n%s", out)
	}
	state, items := b.replay()
	if !state.Lone() || len(items) != 2 {
		t.Errorf("lone = %v, %d leaves", state.Lone(), len(items))
	}
	m, raw := state.Manifest()
	if m == nil || string(raw) != string(b.file(manifestFile)) || string(items[0].Payload) != string(b.file(foundingFile)) {
		t.Error("the files are not what the ledger says")
	}
	issuing, err := x509.ParseCertificate(m.Issuers[0].Certificate)
	if err != nil || issuing.CheckSignatureFrom(b.root()) != nil {
		t.Errorf("issuing certificate: %v", err)
	}
}
