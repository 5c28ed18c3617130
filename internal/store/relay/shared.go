// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// A Shared is the store on PostgreSQL. Several processes may have one database open:
// every transaction locks the rows of the devices that it is about, in the order of
// their keys, then those of the groups, then the counts of pointers, and decides on
// what it then reads. Nothing that can change is kept in memory between two of them.
//
// One that is alone keeps in memory what it decides on, as a Store does, and asks for
// nothing that it knows: a batch goes to the server as a whole, with its commit. All of
// its transactions run on the connection that holds the lock, so that none takes place
// after another process has got that.
type Shared struct {
	tables
	owner bool // Config.Alone

	mu     sync.Mutex
	alone  *sql.Conn                // guarded by mu; holds the lock of an owner
	judge  judge                    // guarded by mu
	keys   map[mailbox.Device]int64 // guarded by mu; rows of devices, which never change
	block  messageBlock             // guarded by mu
	cache  cache                    // of an owner
	groups map[string]groupRow      // guarded by mu; of an owner

	node *presence // of one of several gateways; nil otherwise
}

var _ mailbox.Store = (*Shared)(nil)

// A SharedConfig says which database to open.
type SharedConfig struct {
	Database string        // a PostgreSQL connection string
	Quota    mailbox.Quota // zero fields take the package's defaults
	// Alone refuses a database that another process has open with it: what a gateway
	// keeps in memory of its groups is true only while no other one changes them.
	Alone bool
	// Node, for OpenNode, is the name of one of several gateways on the database, each of
	// which has another. It and Alone exclude each other, on the same database too. With
	// neither, a store is for looking on: nobody is told of what it does.
	Node string
	// Version of the program, for the list of nodes.
	Version string
	// UnsafeNoSync is for the control of durability tests.
	UnsafeNoSync bool
}

// OpenShared opens the database and makes its tables if there are none.
func OpenShared(ctx context.Context, cfg SharedConfig) (*Shared, error) {
	if !store.IsPostgreSQL(cfg.Database) {
		return nil, errors.New("relay store: not a PostgreSQL connection string")
	}
	if cfg.Alone && cfg.Node != "" {
		return nil, errors.New("relay store: one of several gateways is not alone")
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
	s := &Shared{
		tables: tables{db: db}, owner: cfg.Alone, judge: judge{quota: withDefaults(cfg.Quota)},
		keys: make(map[mailbox.Device]int64), cache: newCache(), groups: make(map[string]groupRow),
	}
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
	if cfg.Node != "" {
		if err := s.join(ctx, cfg.Node, cfg.Version); err != nil {
			return nil, errors.Join(fmt.Errorf("relay store: %w", err), s.Close())
		}
	}
	return s, nil
}

// aloneLock is the advisory lock of the one gateway on a database ("VALG", 1). Several
// share it.
const aloneLock = 0x56414c4700000001

// Close ends all connections.
func (s *Shared) Close() error {
	if s.node != nil {
		s.node.leave()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone != nil {
		_ = s.alone.Close() // it may have ended long ago
	}
	return s.db.Close()
}

// Tidy finds out whether this is still the only gateway on the database: the lock ends
// with its connection, as when the server is started anew.
func (s *Shared) Tidy(ctx context.Context) error {
	if s.owner {
		if err := s.tidyLock(ctx); err != nil {
			return fmt.Errorf("relay store: %w", err)
		}
	}
	return s.tidyUrgent(ctx)
}

func (s *Shared) tidyLock(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone.PingContext(ctx) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.takeLock(ctx)
}

// takeLock takes the lock again. Another process may have had it meanwhile.
func (s *Shared) takeLock(ctx context.Context) error {
	_ = s.alone.Close()
	s.forget()
	conn, err := s.db.Hold(ctx, aloneLock)
	if errors.Is(err, store.ErrHeld) {
		err = ErrInUse
	}
	if err != nil {
		return err
	}
	s.alone = conn
	return nil
}

// held returns the connection that holds the lock.
func (s *Shared) held(ctx context.Context) (*sql.Conn, error) {
	if !store.Alive(s.alone) {
		if err := s.takeLock(ctx); err != nil {
			return nil, err
		}
	}
	return s.alone, nil
}

// forget drops what is in memory and can change.
func (s *Shared) forget() {
	s.cache.reset()
	clear(s.groups)
	s.block = messageBlock{} // whether its keys are in use may be unknown
}

// A messageBlock is a row of keys for messages, drawn by one process.
type messageBlock struct{ next, end int64 }

// blockSize is how many keys one draw gives.
const blockSize = 4096

// change runs f in a transaction.
func (s *Shared) change(ctx context.Context, f func(b *sharedBatch) error) error {
	return s.transact(ctx, false, f)
}

// transact is change. With repeat, f is run once more where it is not known whether it
// has happened.
func (s *Shared) transact(ctx context.Context, repeat bool, f func(b *sharedBatch) error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b *sharedBatch
	once := func(flow *store.Flow) error {
		if b != nil {
			s.forget()
		}
		b = newSharedBatch(s, flow)
		b.fence()
		if err := f(b); err != nil {
			return err
		}
		return b.flush()
	}
	if s.owner {
		if err := ctx.Err(); err != nil {
			return err
		}
		// A statement that is cut off ends its connection, and with it the lock.
		err = s.db.UpdateOn(context.WithoutCancel(ctx), s.held, repeat, once)
	} else {
		err = s.db.UpdateRows(ctx, repeat, once)
	}
	if err != nil {
		s.forget()
		if store.IsDivisionByZero(err) { // only demandTurns divides without a refusal of its own
			err = errTurn
		}
		return err
	}
	b.remember()
	return nil
}

// Apply implements mailbox.Store.
func (s *Shared) Apply(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) (outcomes []mailbox.Outcome, err error) {
	for {
		outcomes, err = s.apply(ctx, submissions, acks)
		if !errors.Is(err, errTurn) {
			break
		}
		// Somebody has arrived elsewhere, which is rare: what came of earlier connections is
		// taken out, and all that is left begins anew.
		if submissions, acks, err = s.withoutMoved(ctx, submissions, acks); err != nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("relay store: %w", err)
	}
	return outcomes, nil
}

// apply does a batch. A submission that is nil has Moved.
func (s *Shared) apply(ctx context.Context, submissions []*mailbox.Submission, acks []mailbox.Ack) (outcomes []mailbox.Outcome, err error) {
	// Whether a submission was done is what its mark says: a batch may be run again.
	err = s.transact(ctx, true, func(b *sharedBatch) error {
		outcomes = make([]mailbox.Outcome, len(submissions))
		if err := b.lockFor(submissions, acks); err != nil {
			return err
		}
		b.demandTurns(submissions, acks)
		if err := b.note(acks); err != nil {
			return err
		}
		for i, sub := range submissions {
			if sub == nil {
				outcomes[i] = mailbox.Outcome{Verdict: mailbox.Moved}
				continue
			}
			var err error
			if outcomes[i], err = b.submit(sub); err != nil {
				return err
			}
		}
		return nil
	})
	return outcomes, err
}

// submit judges and does one submission.
func (b *sharedBatch) submit(sub *mailbox.Submission) (mailbox.Outcome, error) {
	from, refusal, err := b.s.judge.decide(b, sub)
	if err == nil && refusal != nil && refusal.Verdict == mailbox.MailboxFull && len(b.freed) > 0 {
		// What this batch has acknowledged may be the room that is missing.
		if err := b.dropNoted(); err != nil {
			return mailbox.Outcome{}, err
		}
		from, refusal, err = b.s.judge.decide(b, sub)
	}
	if err != nil {
		return mailbox.Outcome{}, err
	}
	if refusal != nil {
		return *refusal, nil
	}
	return b.write(sub, from)
}
