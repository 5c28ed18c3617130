// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// A Shared is the store on PostgreSQL. Several processes may have one database open:
// every transaction locks the rows of the devices that it is about, in the order of
// their keys, then those of the groups, then the counts of pointers, and decides on
// what it then reads. Nothing that can change is kept in memory between two of them.
type Shared struct {
	tables
	alone *sql.Conn // holds the lock of Config.Alone; nil: not asked for

	mu    sync.Mutex
	judge judge                    // guarded by mu
	keys  map[mailbox.Device]int64 // guarded by mu; rows of devices, which never change
	block messageBlock             // guarded by mu
}

var _ mailbox.Store = (*Shared)(nil)

// A SharedConfig says which database to open.
type SharedConfig struct {
	Database string        // a PostgreSQL connection string
	Quota    mailbox.Quota // zero fields take the package's defaults
	// Alone refuses a database that another process has open with it: what a gateway
	// keeps in memory of its groups is true only while no other one changes them.
	Alone bool
	// UnsafeNoSync is for the control of durability tests.
	UnsafeNoSync bool
}

// OpenShared opens the database and makes its tables if there are none.
func OpenShared(ctx context.Context, cfg SharedConfig) (*Shared, error) {
	if !store.IsPostgreSQL(cfg.Database) {
		return nil, errors.New("relay store: not a PostgreSQL connection string")
	}
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{
		Path: cfg.Database, Migrations: sub, ApplicationID: ApplicationID, UnsafeNoSync: cfg.UnsafeNoSync,
	})
	if err != nil {
		return nil, fmt.Errorf("relay store: %w", err)
	}
	s := &Shared{tables: tables{db: db}, judge: judge{quota: withDefaults(cfg.Quota)}, keys: make(map[mailbox.Device]int64)}
	if cfg.Alone {
		if s.alone, err = db.Hold(ctx, aloneLock); err != nil {
			if errors.Is(err, store.ErrHeld) {
				err = ErrInUse
			}
			return nil, errors.Join(fmt.Errorf("relay store: %w", err), db.Close())
		}
	}
	if err := s.life(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("relay store: %w", err), s.Close())
	}
	return s, nil
}

// aloneLock is the advisory lock of the one gateway on a database ("VALG", 1).
const aloneLock = 0x56414c4700000001

// Close ends all connections.
func (s *Shared) Close() error {
	if s.alone != nil {
		_ = s.alone.Close() // it may have ended long ago
	}
	return s.db.Close()
}

// Tidy finds out whether this is still the only gateway on the database: the lock ends
// with its connection, as when the server is started anew.
func (s *Shared) Tidy(ctx context.Context) error {
	if s.alone == nil || s.alone.PingContext(ctx) == nil {
		return nil
	}
	_ = s.alone.Close()
	conn, err := s.db.Hold(ctx, aloneLock)
	if errors.Is(err, store.ErrHeld) {
		err = ErrInUse
	}
	if err != nil {
		return fmt.Errorf("relay store: %w", err)
	}
	s.alone = conn
	return nil
}

// A messageBlock is a row of keys for messages, drawn by one process.
type messageBlock struct{ next, end int64 }

// blockSize is how many keys one draw gives.
const blockSize = 4096

// change runs f in a transaction.
func (s *Shared) change(ctx context.Context, f func(b *sharedBatch) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b *sharedBatch
	err := s.db.UpdateRows(ctx, func(flow *store.Flow) error {
		b = newSharedBatch(s, flow)
		if err := f(b); err != nil {
			return err
		}
		return b.flush()
	})
	if err != nil {
		s.block = messageBlock{} // whether its keys are in use may be unknown
		return err
	}
	if len(s.keys)+len(b.met) > maxCached {
		clear(s.keys)
	}
	maps.Copy(s.keys, b.met)
	return nil
}

// Apply implements mailbox.Store.
func (s *Shared) Apply(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) (outcomes []mailbox.Outcome, err error) {
	err = s.change(ctx, func(b *sharedBatch) error {
		outcomes = make([]mailbox.Outcome, len(submissions))
		if err := b.lockFor(submissions, acks); err != nil {
			return err
		}
		if err := b.acknowledge(acks); err != nil {
			return err
		}
		for i, sub := range submissions {
			var err error
			if outcomes[i], err = b.submit(sub); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("relay store: %w", err)
	}
	return outcomes, nil
}

// submit judges and does one submission.
func (b *sharedBatch) submit(sub *mailbox.Submission) (mailbox.Outcome, error) {
	from, refusal, err := b.s.judge.decide(b, sub)
	if err != nil {
		return mailbox.Outcome{}, err
	}
	if refusal != nil {
		return *refusal, nil
	}
	return b.write(sub, from)
}
