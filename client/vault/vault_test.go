// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"valise/internal/store"
)

// card is the double of a card's slot 9d: a software key that is used through
// ecdh.KeyExchanger only, as the card's is.
func card(t *testing.T, curve ecdh.Curve) ecdh.KeyExchanger {
	t.Helper()
	key, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func create(t *testing.T, key ecdh.KeyExchanger) (*Vault, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vault.db")
	v, err := Create(context.Background(), path, [32]byte{1}, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Lock() })
	return v, path
}

func put(t *testing.T, v *Vault, table, parent, row, value string) {
	t.Helper()
	err := v.Update(context.Background(), func(tx *Tx) error {
		return tx.Put(table, []byte(parent), []byte(row), []byte(value))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(v *Vault, table, parent, row string) (string, error) {
	var out []byte
	err := v.View(context.Background(), func(tx *Tx) (err error) {
		out, err = tx.Get(table, []byte(parent), []byte(row))
		return err
	})
	return string(out), err
}

func TestOpenAgain(t *testing.T) {
	for _, curve := range []ecdh.Curve{ecdh.P256(), ecdh.P384()} {
		key := card(t, curve)
		v, path := create(t, key)
		put(t, v, "t", "p", "r", "kept")
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
		if _, err := get(v, "t", "p", "r"); !errors.Is(err, ErrLocked) {
			t.Fatalf("a locked vault answers %v", err)
		}
		v, err := Open(context.Background(), path, [32]byte{1}, key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := get(v, "t", "p", "r"); err != nil || got != "kept" {
			t.Fatalf("read %q, %v", got, err)
		}
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockWipesKey(t *testing.T) {
	v, _ := create(t, card(t, ecdh.P384()))
	key := v.key
	if bytes.Equal(key, make([]byte, 32)) {
		t.Fatal("the store key is zero while unlocked")
	}
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key, make([]byte, 32)) {
		t.Fatal("the store key is still in memory after Lock")
	}
}

func TestWrongCard(t *testing.T) {
	key := card(t, ecdh.P384())
	v, path := create(t, key)
	v.Lock()
	if _, err := Open(context.Background(), path, [32]byte{1}, card(t, ecdh.P384())); !errors.Is(err, ErrWrongCard) {
		t.Fatalf("another card: %v", err)
	}
	if _, err := Open(context.Background(), path, [32]byte{2}, key); !errors.Is(err, ErrAltered) {
		t.Fatalf("another device id: %v", err)
	}
	v, err := Open(context.Background(), path, [32]byte{1}, key)
	if err != nil {
		t.Fatalf("the right card: %v", err)
	}
	v.Lock()
}

func TestEachUnlockWrapsAnew(t *testing.T) {
	key := card(t, ecdh.P384())
	v, path := create(t, key)
	v.Lock()
	seen := map[string]bool{}
	for range 3 {
		v, err := Open(context.Background(), path, [32]byte{1}, key)
		if err != nil {
			t.Fatal(err)
		}
		var ephemeral []byte
		err = v.db.View(context.Background(), func(tx *store.Tx) error {
			return tx.QueryRow("SELECT ephemeral FROM recipient").Scan(&ephemeral)
		})
		if err != nil || seen[string(ephemeral)] {
			t.Fatalf("ephemeral key used again, %v", err)
		}
		seen[string(ephemeral)] = true
		v.Lock()
	}
}

func TestOrderedRows(t *testing.T) {
	v, _ := create(t, card(t, ecdh.P256()))
	err := v.Update(context.Background(), func(tx *Tx) error {
		for _, n := range []uint64{3, 1, 300, 2} {
			if err := tx.Put("n", []byte("p"), Numbered(n), []byte{byte(n)}); err != nil {
				return err
			}
		}
		return tx.Put("n", []byte("other"), Numbered(9), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = v.View(context.Background(), func(tx *Tx) error {
		cells, err := tx.Range("n", []byte("p"), 1, 2)
		if err != nil {
			return err
		}
		if len(cells) != 2 || Number(cells[0].Row) != 2 || Number(cells[1].Row) != 3 {
			t.Errorf("range after 1: %v", cells)
		}
		last, err := tx.Last("n", []byte("p"))
		if last != 300 {
			t.Errorf("last = %d", last)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A value moved to another cell, or given another version, must not open; the
// control cell beside it does.
func TestSwappedRows(t *testing.T) {
	v, _ := create(t, card(t, ecdh.P256()))
	put(t, v, "t", "p", "a", "alpha")
	put(t, v, "t", "p", "b", "beta")
	put(t, v, "t", "p", "c", "control")
	put(t, v, "u", "p", "a", "other table")
	ctx := context.Background()
	alter := func(query string, args ...any) {
		t.Helper()
		err := v.db.Update(ctx, func(tx *store.Tx) error { _, err := tx.Exec(query, args...); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(table, row string) (p, r []byte) {
		v.View(ctx, func(tx *Tx) (err error) { p, r, err = tx.place(table, []byte("p"), []byte(row)); return err })
		return p, r
	}
	p, a := at("t", "a")
	_, b := at("t", "b")
	swap := "UPDATE cell SET (version, value) = (SELECT version, value FROM cell WHERE tbl = $1 AND parent = $2 AND row = $3) WHERE tbl = $1 AND parent = $2 AND row = $4"
	alter(swap, "t", p, b, a)
	if got, err := get(v, "t", "p", "a"); !errors.Is(err, ErrAltered) {
		t.Errorf("a row with another row's value reads %q, %v", got, err)
	}
	alter("UPDATE cell SET version = version + 1 WHERE tbl = 't' AND row = $1", b)
	if got, err := get(v, "t", "p", "b"); !errors.Is(err, ErrAltered) {
		t.Errorf("a row with another version reads %q, %v", got, err)
	}
	up, ua := at("u", "a")
	alter("UPDATE cell SET (version, value) = (SELECT version, value FROM cell WHERE tbl = 't' AND parent = $1 AND row = $2) WHERE tbl = 'u' AND parent = $3", p, a, up)
	if got, err := get(v, "u", "p", "a"); !errors.Is(err, ErrAltered) {
		t.Errorf("a row of another table reads %q, %v (%x)", got, err, ua)
	}
	if got, err := get(v, "t", "p", "c"); err != nil || got != "control" {
		t.Errorf("the control reads %q, %v", got, err)
	}
}

func TestTruncatedFile(t *testing.T) {
	key := card(t, ecdh.P256())
	v, path := create(t, key)
	for i := range 64 {
		put(t, v, "t", "p", string(rune('a'+i)), string(make([]byte, 2000)))
	}
	v.Lock()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{len(whole) / 2, len(whole) - 4096, 100} {
		cut := filepath.Join(t.TempDir(), "cut.db")
		if err := os.WriteFile(cut, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), cut, [32]byte{1}, key); !errors.Is(err, ErrAltered) {
			t.Errorf("a file cut to %d of %d bytes: %v", n, len(whole), err)
		}
	}
	same := filepath.Join(t.TempDir(), "same.db")
	if err := os.WriteFile(same, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err = Open(context.Background(), same, [32]byte{1}, key)
	if err != nil {
		t.Fatalf("the whole file: %v", err)
	}
	v.Lock()
}

// Nothing that was put in may be found in the file or its log by reading them.
func TestNoPlaintextInFile(t *testing.T) {
	v, path := create(t, card(t, ecdh.P256()))
	planted := []string{"PLANTED-parent@domain.example", "PLANTED-row-name", "PLANTED-content-of-a-message"}
	put(t, v, "t", planted[0], planted[1], planted[2])
	look := func(when string) {
		t.Helper()
		files, _ := filepath.Glob(path + "*")
		if len(files) == 0 {
			t.Fatal("no file to look into")
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range planted {
				if bytes.Contains(data, []byte(p)) {
					t.Errorf("%s: %s holds %q", when, filepath.Base(f), p)
				}
			}
			if bytes.Contains(data, v.key) && !bytes.Equal(v.key, make([]byte, 32)) {
				t.Errorf("%s: %s holds the store key", when, filepath.Base(f))
			}
		}
	}
	look("while unlocked")
	v.Lock()
	look("after Lock")
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		t.Errorf("the write-ahead log has %d bytes after Lock", info.Size())
	}
}

func FuzzParseCell(f *testing.F) {
	f.Add([]byte{0, 1, 'r', 'v'})
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCell(data)
		if err != nil {
			return
		}
		again := append([]byte{byte(len(c.Row) >> 8), byte(len(c.Row))}, c.Row...)
		if !bytes.Equal(append(again, c.Value...), data) {
			t.Fatalf("parsed %x to %v", data, c)
		}
	})
}

// Whatever stands in the list of recipients, opening must end in an error and
// never in a panic or in another key.
func FuzzUnwrap(f *testing.F) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	storeKey := bytes.Repeat([]byte{7}, 32)
	r, err := wrap(storeKey, [32]byte{1}, key.PublicKey())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.curve, uint64(1), r.ephemeral, r.wrapped)
	f.Add("P-384", uint64(2), []byte{4}, []byte{})
	f.Fuzz(func(t *testing.T, curve string, version uint64, ephemeral, wrapped []byte) {
		got, err := (&recipient{id: r.id, version: version, curve: curve, ephemeral: ephemeral, wrapped: wrapped}).unwrap([32]byte{1}, key)
		if err == nil && !bytes.Equal(got, storeKey) {
			t.Fatalf("another store key came out: %x", got)
		}
	})
}
