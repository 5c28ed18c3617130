// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/internal/testenv"
)

// elsewhere is another place for the same authority: the same URL and token, an empty
// data directory, and the database given ("" is SQLite's default).
func (b *bureau) elsewhere(database string) *bureau {
	b.t.Helper()
	other := *b
	other.dir = b.t.TempDir()
	other.config = filepath.Join(other.dir, "enrolld.toml")
	for _, name := range []string{"enrolld.toml", "vendor.pem"} {
		data, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil {
			b.t.Fatal(err)
		}
		other.write(name, string(data))
	}
	if database != "" {
		other.configure("data = \"data\"\n", "data = \"data\"\ndatabase = \""+database+"\"\n")
	}
	return &other
}

func (b *bureau) refuses(want string, args ...string) {
	b.t.Helper()
	if _, err := b.run(args...); err == nil || !strings.Contains(err.Error(), want) {
		b.t.Errorf("%s: %v, want %q", strings.Join(args, " "), err, want)
	}
}

// From a running daemon on SQLite to one on PostgreSQL and back, and what must not be
// restored, or restored over. What was restored issues nothing; --without-gateways, the
// control, does.
func TestBackupAndRestore(t *testing.T) {
	soft := testenv.SoftHSM(t)
	b := newBureau(t, soft, soft.PINFile)
	b.must("init")
	b.must("roster", "import", "people.csv")
	b.start()
	root, card := b.root(), b.vendor.Card(t, enrolltest.CardConfig{})
	alice := b.client(root)
	issuedTo(t, root, alice.Enroll(b.invite("alice"), card), "alice@"+domain)
	file := filepath.Join(t.TempDir(), "backup")
	open := b.invite("bob")
	if out := b.must("backup", "--out", file); !strings.Contains(out, "backup of "+domain) {
		t.Errorf("backup printed %q", out)
	}
	b.refuses("exists", "backup", "--out", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b.refuses("exists", "restore", "--from", file) // over what is there
	issuedTo(t, root, b.client(root).Enroll(b.invite("bob"), b.vendor.Card(t, enrolltest.CardConfig{})), "bob@"+domain)
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}

	t.Run("refused", func(t *testing.T) {
		place := b.elsewhere("")
		place.t = t
		for name, c := range map[string]struct {
			data []byte
			want string
		}{
			"cut":          {data[:len(data)*2/3], "too early"},
			"flipped":      {bytes.Replace(data, []byte("Cabinet"), []byte("Cabin3t"), 1), "damaged"},
			"not a backup": {[]byte("junk\n"), "no backup"},
		} {
			place.write("bad", string(c.data))
			place.refuses(c.want, "restore", "--from", "bad")
			if names, err := os.ReadDir(filepath.Join(place.dir, "data")); err == nil && len(names) > 0 {
				t.Errorf("%s: %v was left", name, names)
			}
		}
		place.configure(`domain = "`+domain+`"`, `domain = "other.example"`)
		place.refuses("the configuration of other.example", "restore", "--from", file)
	})

	t.Run("read-only", func(t *testing.T) {
		place := b.elsewhere(testenv.Postgres(t).DSN)
		place.t = t
		if out := place.must("restore", "--from", file); !strings.Contains(out, "until gateways have told") {
			t.Errorf("restore printed %q", out)
		}
		place.refuses("exists", "restore", "--from", file)
		if out := place.must("list"); !strings.Contains(out, "alice@") || strings.Contains(out, "bob@") {
			t.Errorf("list printed\n%s", out)
		}
		before := place.must("list")
		place.start()
		c := place.client(root)
		c.Key, c.KID = alice.Key, alice.KID
		o, r := c.NewOrder(card.ID(t).String())
		if o != nil {
			c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
			if done, _ := c.Finish(o, enrolltest.CSR(t, card.Key)); done != nil && done.Status == "valid" {
				t.Error("issued by a restored copy that asked nobody")
			}
		} else if r.Status < 500 {
			t.Errorf("order: %d %s", r.Status, r.Body)
		}
		if r := place.client(root).Register(open); r.Reason != "invitation_key" && r.Reason != "invitation_expired" {
			t.Errorf("an invitation of before: %d %s", r.Status, r.Body)
		}
		place.refuses("read-only", "gateway-cert", "--csr", place.csr(), "--name", "gw."+domain)
		if code, body := place.health(); code != http.StatusServiceUnavailable || !strings.Contains(body, "restored") {
			t.Errorf("health: %d %s", code, body)
		}
		if after := place.must("list"); after != before {
			t.Errorf("something was issued:\n%s\nbefore:\n%s", after, before)
		}
		if err := place.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})

	t.Run("without gateways", func(t *testing.T) {
		first := b.elsewhere(testenv.Postgres(t).DSN)
		first.t = t
		if out := first.must("restore", "--from", file, "--without-gateways"); !strings.Contains(out, "No gateway is waited for") {
			t.Errorf("restore printed %q", out)
		}
		again := filepath.Join(t.TempDir(), "again") // and back to SQLite
		first.must("backup", "--out", again)
		place := b.elsewhere("")
		place.t = t
		place.must("restore", "--from", again, "--without-gateways")
		place.start()
		c := place.client(root)
		c.Key, c.KID = alice.Key, alice.KID
		o, r := c.NewOrder(card.ID(t).String())
		if o == nil {
			t.Fatalf("order: %d %s", r.Status, r.Body)
		}
		c.Attest(o, card.Answer(t, c.KeyAuthorization(o)))
		if done, r := c.Finish(o, enrolltest.CSR(t, card.Key)); done == nil || done.Status != "valid" {
			t.Errorf("the control was not issued: %d %s", r.Status, r.Body)
		}
		if code, body := place.health(); code != http.StatusOK {
			t.Errorf("health: %d %s", code, body)
		}
	})
}

// An older copy of the database that is put in the place of the newer one, in which
// somebody was enrolled since, is not worked with; the newer one put back is.
func TestOlderDatabase(t *testing.T) {
	soft := testenv.SoftHSM(t)
	b := newBureau(t, soft, soft.PINFile)
	b.must("init")
	b.must("roster", "import", "people.csv")
	database, older := filepath.Join(b.dir, "data", databaseFile), filepath.Join(t.TempDir(), "older")
	day := func() {
		t.Helper()
		b.start()
		issuedTo(t, b.root(), b.client(b.root()).Enroll(b.invite("alice"), b.vendor.Card(t, enrolltest.CardConfig{})), "alice@"+domain)
		mark := filepath.Join(b.dir, "data", markFile)
		before, _ := os.ReadFile(mark)
		for deadline := time.Now().Add(10 * time.Second); ; {
			if now, err := os.ReadFile(mark); err == nil && !bytes.Equal(now, before) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no new checkpoint was kept")
			}
			<-time.After(10 * time.Millisecond)
		}
		if err := b.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	move := func(from, to string) {
		t.Helper()
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	day()
	move(database, older)
	day()
	newer := filepath.Join(t.TempDir(), "newer")
	move(database, newer)
	move(older, database)
	b.refuses("not the database that this machine worked with last", "serve")
	move(newer, database)
	day()
}

// csr writes a gateway's CSR and returns the file's name.
func (b *bureau) csr() string {
	b.t.Helper()
	b.write("gw.csr", string(enrolltest.CSR(b.t, b.vendor.Card(b.t, enrolltest.CardConfig{}).Key)))
	return "gw.csr"
}
