// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"valise/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

const applicationID = 0x5641554c // "VAUL"

// A Vault is an unlocked store. Its methods may be called by any goroutine.
type Vault struct {
	db *store.DB

	mu      sync.RWMutex // held for reading by transactions, for writing by Lock
	locked  bool
	key     []byte // the store key; wiped by Lock
	version uint64 // of the newest write; only changed inside Update, which is serial
}

// Create makes a vault in a new file and leaves it unlocked.
func Create(ctx context.Context, path string, device [32]byte, card ecdh.KeyExchanger) (*Vault, error) {
	if _, err := os.Stat(path); err == nil {
		return nil, ErrExists
	}
	db, err := openFile(ctx, path)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	rand.Read(key)
	v := &Vault{db: db, key: key}
	if err := v.rewrap(ctx, device, card.PublicKey()); err != nil {
		return nil, errors.Join(err, v.Lock())
	}
	return v, nil
}

// Open unlocks a vault with the card it was sealed for, and wraps its key anew.
// A card that is not among the recipients gets ErrWrongCard.
func Open(ctx context.Context, path string, device [32]byte, card ecdh.KeyExchanger) (*Vault, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	db, err := openFile(ctx, path)
	if err != nil {
		return nil, damaged(err)
	}
	v := &Vault{db: db}
	if err := v.unlock(ctx, device, card); err != nil {
		return nil, errors.Join(err, v.Lock())
	}
	return v, nil
}

func openFile(ctx context.Context, path string) (*store.DB, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Config{Path: path, Migrations: sub, ApplicationID: applicationID, SecureDelete: true})
}

func (v *Vault) unlock(ctx context.Context, device [32]byte, card ecdh.KeyExchanger) error {
	if err := v.check(ctx); err != nil {
		return err
	}
	id, err := recipientID(card.PublicKey())
	if err != nil {
		return err
	}
	r := recipient{id: id}
	err = v.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, "SELECT version, curve, ephemeral, wrapped FROM recipient WHERE id = $1", id).
			Scan(&r.version, &r.curve, &r.ephemeral, &r.wrapped)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return ErrWrongCard
	}
	if err != nil {
		return damaged(err)
	}
	if v.key, err = r.unwrap(device, card); err != nil {
		return err
	}
	return v.rewrap(ctx, device, card.PublicKey())
}

// check lets SQLite read every page, so that a truncated or scrambled file is
// refused at once and not in the middle of a conversation.
func (v *Vault) check(ctx context.Context) error {
	return v.db.View(ctx, func(tx *store.Tx) error {
		var verdict string
		if err := tx.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
			return damaged(err)
		}
		if verdict != "ok" {
			return fmt.Errorf("%w: %s", ErrAltered, verdict)
		}
		var newest sql.NullInt64
		if err := tx.QueryRowContext(ctx, "SELECT max(version) FROM cell").Scan(&newest); err != nil {
			return damaged(err)
		}
		v.version = uint64(newest.Int64)
		return nil
	})
}

// rewrap replaces the list of recipients by one fresh wrapping.
func (v *Vault) rewrap(ctx context.Context, device [32]byte, card *ecdh.PublicKey) error {
	r, err := wrap(v.key, device, card)
	if err != nil {
		return err
	}
	err = v.db.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM recipient"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO recipient (id, version, curve, ephemeral, wrapped) VALUES ($1, $2, $3, $4, $5)",
			r.id, int64(r.version), r.curve, r.ephemeral, r.wrapped)
		return err
	})
	if err != nil {
		return fmt.Errorf("vault: wrap the store key: %w", err)
	}
	return v.db.Checkpoint(ctx)
}

// Update runs f in one durable read-write transaction. Like store.Update it may
// call f more than once.
func (v *Vault) Update(ctx context.Context, f func(tx *Tx) error) error {
	return v.run(ctx, v.db.Update, f, true)
}

// View runs f on one consistent state.
func (v *Vault) View(ctx context.Context, f func(tx *Tx) error) error {
	return v.run(ctx, v.db.View, f, false)
}

func (v *Vault) run(ctx context.Context, do func(context.Context, func(*store.Tx) error) error, f func(*Tx) error, write bool) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.locked {
		return ErrLocked
	}
	aead, names, err := v.subkeys()
	if err != nil {
		return err
	}
	return do(ctx, func(tx *store.Tx) error {
		t := &Tx{ctx: ctx, tx: tx, aead: aead, names: names}
		if write { // the store runs writers one after another
			v.version++
			t.version = v.version
		}
		return f(t)
	})
}

// subkeys derives the keys for values and for names.
func (v *Vault) subkeys() (cipher.AEAD, []byte, error) {
	values, err := hkdf.Expand(sha256.New, v.key, "valise vault values", 32)
	if err != nil {
		return nil, nil, fmt.Errorf("vault: %w", err)
	}
	defer clear(values)
	names, err := hkdf.Expand(sha256.New, v.key, "valise vault names", 32)
	if err != nil {
		return nil, nil, fmt.Errorf("vault: %w", err)
	}
	aead, err := newGCM(values)
	return aead, names, err
}

// Tidy empties the write-ahead log, in which deleted content would stay readable
// to a holder of the card. Call it when nothing else happens.
func (v *Vault) Tidy(ctx context.Context) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.locked {
		return ErrLocked
	}
	return v.db.Checkpoint(ctx)
}

// Lock wipes the store key, truncates the write-ahead log and closes the file. It
// waits for running transactions. A second call does nothing.
func (v *Vault) Lock() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.locked {
		return nil
	}
	v.locked = true
	clear(v.key)
	return errors.Join(v.db.Checkpoint(context.Background()), v.db.Close())
}

func damaged(err error) error {
	var coded interface{ Code() int }
	const corrupt, notADatabase = 11, 26 // https://sqlite.org/rescode.html
	if errors.As(err, &coded) && (coded.Code()&0xff == corrupt || coded.Code()&0xff == notADatabase) {
		return fmt.Errorf("%w: %v", ErrAltered, err)
	}
	return err
}
