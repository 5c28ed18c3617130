// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/store"
	"valise/internal/testenv"
	"valise/ledger"
)

var eachKind = map[string]func(t testing.TB) string{
	"SQLite":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "a.db") },
	"PostgreSQL": func(t testing.TB) string { return testenv.Postgres(t).DSN },
}

// fill puts something into every table.
func fill(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	must(t, s.Update(ctx, func(tx *Tx) error {
		classes, err := identity.NewClassList(1, 4)
		must(t, err)
		for i, name := range []string{"alice", "bob"} {
			address := addressOf(t, name)
			p := Person{Address: address, Name: "Ünï <code> & \u2028", Changed: start}
			if i == 0 {
				p.Clearance = &identity.Clearance{PolicyID: []int{1, 2, 3}, ClassList: classes}
			}
			_, err := tx.PutPerson(p)
			must(t, err)
			must(t, tx.AddInvitation(Invitation{KID: name, Key: []byte("the secret key of " + name), Address: address, Created: start, Expires: start.Add(time.Hour)}))
		}
		must(t, tx.UseInvitation("bob", start))
		bob, err := tx.AddAccount(Account{Thumbprint: "t", JWK: []byte("{}"), Address: addressOf(t, "bob"), KID: "bob", Status: Valid, Created: start})
		must(t, err)
		for status, authz := range map[string]string{Pending: Pending, Ready: Valid, Processing: Valid, Valid: Valid} {
			must(t, tx.AddOrder(Order{ID: status, Account: bob, Profile: "device", Status: status, Created: start, Expires: start.Add(time.Hour)},
				Authorization{ID: "z" + status, Order: status, Token: "t" + status, Status: authz, Expires: start.Add(time.Hour)}))
		}
		must(t, tx.AddOrder(Order{ID: "recorded", Account: bob, Profile: "device", Status: Processing, Created: start, Expires: start.Add(time.Hour)},
			Authorization{ID: "zr", Order: "recorded", Token: "tr", Status: Valid, Expires: start.Add(time.Hour)}))
		must(t, tx.AddBulletin(SignedBulletin{5, []byte("bulletin 5")}))
		must(t, tx.AddCheckpoint(Checkpoint{1, []byte("checkpoint")}))
		list, err := tx.ReserveCRL([]byte("state"), start)
		must(t, err)
		must(t, tx.AddCRL(StoredCRL{Number: list, DER: []byte("crl")}))
		return tx.SetFlag("kept", nil)
	}))
	must(t, s.UseNonce(ctx, s.NewNonce(time.Now()), time.Now()))
	for i := range 6 {
		payload := fmt.Appendf(nil, "payload %d", i)
		must(t, s.Append(ctx, func(tx *Tx) error {
			_, err := tx.AppendLeaf(entry(t, payload, start), payload)
			return err
		}))
	}
	i := issuance("order:recorded", 2)
	i.Certificate = nil
	must(t, s.Update(ctx, func(tx *Tx) error { return tx.AddIssuance(i) }))
}

func dump(t testing.TB, s *Store) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, s.Dump(t.Context(), &out, Backup{
		Domain: "interieur.example", Root: [32]byte{7}, Time: start,
		Files: []BackupFile{{"chain.pem", []byte("chain")}, {"empty", nil}},
	}))
	return out.Bytes()
}

func load(t testing.TB, s *Store, data []byte) error {
	t.Helper()
	return s.Load(t.Context(), func() (io.Reader, error) { return bytes.NewReader(data), nil }, start.Add(restoredAfter))
}

// restoredAfter is when, after the backup, it is restored.
const restoredAfter = 1000 * time.Second

// From either database to either: what goes in comes out, but for what must not come
// back.
func TestBackupMoves(t *testing.T) {
	for from, makeFrom := range eachKind {
		for to, makeTo := range eachKind {
			t.Run(from+" to "+to, func(t *testing.T) {
				old := testOpen(t, makeFrom(t))
				fill(t, old)
				data := dump(t, old)
				b, err := ReadBackup(bytes.NewReader(data))
				must(t, err)
				if b.Domain != "interieur.example" || b.Root != [32]byte{7} || !b.Time.Equal(start) || b.Head.N != 6 ||
					len(b.Files) != 2 || string(b.Files[0].Data) != "chain" || b.Rows < 20 {
					t.Errorf("it says %+v", b)
				}
				restored := testOpen(t, makeTo(t))
				must(t, load(t, restored, data))
				again := dump(t, restored)
				if !bytes.Equal(normal(data), normal(again)) {
					t.Errorf("a backup of the restored database is another one:\n%s\n---\n%s", normal(data), normal(again))
				}
				checkRestored(t, old, restored)
			})
		}
	}
}

// normal sorts a backup's lines and leaves out what a restore changes.
func normal(data []byte) []byte {
	lines := strings.Split(string(data), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, `{"rows":`) || strings.HasPrefix(line, "[87401,") || // the reserved number of a revocation list
			regexp.MustCompile(`^\["z?(pending|ready|processing|recorded)"`).MatchString(line)
	})
	slices.Sort(lines)
	return []byte(strings.Join(lines, "\n"))
}

func checkRestored(t *testing.T, old, restored *Store) {
	t.Helper()
	now := time.Now()
	if err := restored.UseNonce(t.Context(), old.NewNonce(now), now); !errors.Is(err, ErrNonce) {
		t.Errorf("a nonce of the old database: %v", err)
	}
	must(t, restored.UseNonce(t.Context(), restored.NewNonce(now), now))
	must(t, restored.View(t.Context(), func(tx *Tx) error {
		for id, want := range map[string]string{Pending: Invalid, Ready: Invalid, Processing: Invalid, Valid: Valid, "recorded": Processing} {
			o, err := tx.Order(id)
			if err != nil || o.Status != want {
				t.Errorf("the order that was %s is %s, %v", id, o.Status, err)
			}
		}
		for _, kid := range []string{"alice", "bob"} {
			if inv, err := tx.Invitation(kid); err != nil || len(inv.Key) != 0 {
				t.Errorf("invitation %s: key %q, %v", kid, inv.Key, err)
			}
		}
		if _, err := tx.Flag("kept"); err != nil {
			t.Error(err)
		}
		if err := tx.Writable(); !errors.Is(err, ErrRestored) {
			t.Errorf("it can be written: %v", err)
		}
		if crl, err := tx.LatestCRL(); err != nil || string(crl.DER) != "crl" {
			t.Errorf("revocation list %+v, %v", crl, err)
		}
		latest, err := tx.LatestBulletin()
		if err != nil || latest.Number != 5 {
			t.Errorf("bulletin %d, %v", latest.Number, err)
		}
		return nil
	}))
	// In the meantime there may have been a list for each second.
	must(t, restored.Recover(t.Context(), func(tx *Tx) error {
		number, err := tx.ReserveCRL([]byte("state"), start)
		if number <= 1+int64(restoredAfter.Seconds()) {
			t.Errorf("revocation list %d", number)
		}
		return err
	}))
}

// No secret stands in a backup: not the keys of invitations, and not what
// authenticates nonces.
func TestBackupHoldsNoSecret(t *testing.T) {
	s := testOpen(t, filepath.Join(t.TempDir(), "a.db"))
	fill(t, s)
	data := dump(t, s)
	secret := s.nonces.Load().secret
	for name, bad := range map[string][]byte{"nonce secret": secret[:], "invitation": []byte("the secret key of alice")} {
		for form, text := range map[string]string{
			"raw": string(bad), "hex": hex.EncodeToString(bad), "base64": base64.StdEncoding.EncodeToString(bad),
		} {
			if bytes.Contains(data, []byte(text)) {
				t.Errorf("%s, %s", name, form)
			}
		}
	}
	if !bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString([]byte("payload 3")))) {
		t.Error("the control, a payload, is not there either")
	}
}

// A backup that was cut, changed or extended is not restored, and leaves nothing.
func TestBackupDamage(t *testing.T) {
	s := testOpen(t, filepath.Join(t.TempDir(), "a.db"))
	fill(t, s)
	honest := dump(t, s)
	lines := bytes.SplitAfter(honest, []byte("\n"))
	replace := func(old, text string) []byte {
		if !bytes.Contains(honest, []byte(old)) {
			t.Fatalf("no %s in the backup", old)
		}
		return rehash(bytes.Replace(honest, []byte(old), []byte(text), 1))
	}
	flipped := bytes.Clone(honest)
	flipped[len(flipped)/2] ^= 1
	payload := base64.StdEncoding.EncodeToString([]byte("payload 3"))
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty":            {nil, "too early"},
		"cut":              {bytes.Join(lines[:len(lines)-2], nil), "too early"},
		"cut in a line":    {honest[:len(honest)/2], "too early"},
		"flipped":          {flipped, ""},
		"a changed row":    {bytes.Replace(honest, []byte(payload), []byte(strings.ToUpper(payload)), 1), ""},
		"a missing row":    {bytes.Join(slices.DeleteFunc(slices.Clone(lines), func(line []byte) bool { return bytes.HasPrefix(line, []byte(`["bob@`)) }), nil), "hash"},
		"extended":         {append(bytes.Clone(honest), '\n'), "follows"},
		"another version":  {replace(`{"backup":1,`, `{"backup":2,`), "version 2"},
		"unknown member":   {replace(`{"backup":1,`, `{"backup":1,"x":1,`), "unknown field"},
		"unknown table":    {replace(`{"table":"people"`, `{"table":"persons"`), "does not know table"},
		"unknown column":   {replace(`"unit"`, `"unity"`), "does not know a column"},
		"injected":         {replace(`"unit"`, `"unit) SELECT 1; --"`), "no name"},
		"a nonce":          {replace(`{"table":"people"`, `{"table":"nonces"`), "does not belong"},
		"short row":        {replace(`["bob@interieur.example",`, `[`), "a row of"},
		"a lie about rows": {rehash(bytes.Replace(honest, []byte(`{"rows":`), []byte(`{"rows":1`), 1)), "rows, and says"},
		"another ledger":   {replace(`"leaves":6`, `"leaves":7`), "another one than it says"},
	} {
		t.Run(name, func(t *testing.T) {
			target := testOpen(t, filepath.Join(t.TempDir(), "b.db"))
			err := load(t, target, c.data)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			must(t, target.View(t.Context(), func(tx *Tx) error {
				people, err := tx.People()
				size, sizeErr := tx.LedgerSize()
				if len(people) != 0 || size != 0 {
					t.Errorf("%d people and %d leaves were left", len(people), size)
				}
				return errors.Join(err, sizeErr)
			}))
		})
	}
	target := testOpen(t, filepath.Join(t.TempDir(), "b.db"))
	must(t, load(t, target, honest))
	if err := load(t, target, honest); !errors.Is(err, ErrExists) {
		t.Errorf("over what is there: %v", err)
	}
}

// rehash gives a changed backup the hash that it needs.
func rehash(data []byte) []byte {
	end := bytes.LastIndex(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) + 1
	w := newBackupWriter(io.Discard)
	w.hash.Write(data[:end])
	return regexp.MustCompile(`"sha256":"[0-9a-f]*"`).ReplaceAll(data, []byte(`"sha256":"`+hex.EncodeToString(w.hash.Sum(nil))+`"`))
}

// A backup that is made while others write is one consistent state.
func TestBackupWhileWritten(t *testing.T) { eachDatabase(t, testBackupWhileWritten) }

func testBackupWhileWritten(t *testing.T, path string) {
	s, other := testOpen(t, path), testOpen(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			payload := fmt.Appendf(nil, "payload %d", i)
			err := other.Append(ctx, func(tx *Tx) error {
				e, err := ledger.NewEntry(ledger.KindStatement, payload, start)
				if err == nil {
					_, err = tx.AppendLeaf(e, payload)
				}
				return err
			})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	sizes := make(map[int64]bool)
	for range 5 {
		data := dump(t, s)
		restored := testOpen(t, filepath.Join(t.TempDir(), "b.db"))
		must(t, load(t, restored, data)) // compares the ledger with the head
		b, err := ReadBackup(bytes.NewReader(data))
		must(t, err)
		sizes[b.Head.N] = true
	}
	cancel()
	wg.Wait()
	if len(sizes) < 2 {
		t.Error("nothing was written meanwhile: the test shows nothing")
	}
}

// Every table is in a backup or on the list of those that are not, and no column of
// theirs may be null: who adds one decides.
func TestBackupKnowsEveryTable(t *testing.T) {
	s := testOpen(t, filepath.Join(t.TempDir(), "a.db"))
	must(t, s.View(t.Context(), func(tx *Tx) error {
		dumped, err := tx.tables(store.SQLite)
		must(t, err)
		all := append(slices.Clone(dumped), notDumped...)
		must(t, tx.each(func(scan func(...any) error) error {
			var name string
			err := scan(&name)
			if !slices.Contains(all, name) && !strings.HasPrefix(name, "sqlite") {
				t.Errorf("table %s is in no backup", name)
			}
			return err
		}, "SELECT name FROM sqlite_schema WHERE type = 'table'"))
		return tx.each(func(scan func(...any) error) error {
			var table, column string
			err := scan(&table, &column)
			t.Errorf("%s.%s may be null", table, column)
			return err
		}, `SELECT s.name, c.name FROM sqlite_schema s, pragma_table_info(s.name) c
			WHERE s.type = 'table' AND c."notnull" = 0 AND c.pk = 0 AND s.name NOT LIKE 'sqlite%' AND s.name NOT LIKE 'goose%'`)
	}))
}

func FuzzReadBackup(f *testing.F) {
	s := testOpen(f, filepath.Join(f.TempDir(), "a.db"))
	f.Add(dump(f, s))
	f.Add([]byte("{\"backup\":1}\n"))
	f.Add(rehash([]byte("{\"backup\":1,\"domain\":\"\",\"root\":\"" + strings.Repeat("00", 32) + "\",\"time\":\"2026-01-01T00:00:00Z\",\"leaves\":0,\"tree\":\"" +
		base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\"}\n{\"table\":\"t\",\"columns\":[\"a\"]}\n[{\"b\":\"AA==\"}]\n{\"rows\":1,\"sha256\":\"\"}\n")))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBackup(bytes.NewReader(data))
		if err == nil && b.Rows < 0 {
			t.Error("negative rows")
		}
		if err != nil && !errors.Is(err, ErrBackup) {
			t.Errorf("an error of another kind: %v", err)
		}
		// Whatever was changed in the lines, with the right hash behind it.
		_, _ = ReadBackup(bytes.NewReader(rehash(data)))
	})
}

func addressOf(t testing.TB, name string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(name + "@interieur.example")
	must(t, err)
	return a
}
