// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// A Node is the store of one of several gateways on one PostgreSQL database: a Shared that
// tells the others what it has done and hears what they tell. Nothing that can change is
// kept in memory; all is decided under locks of rows.
//
//	n, err := relay.OpenNode(ctx, relay.SharedConfig{Database: dsn, Node: "north"})
//	box := mailbox.New(mailbox.Config{Store: n, Hear: …})   // follows the others as it runs
type Node struct {
	*Shared

	putOff []mailbox.Ack          // Apply's: acknowledgements that it left for later
	passed map[mailbox.Device]int // Apply's: how often a device's was
}

var _ mailbox.Node = (*Node)(nil)

// OpenNode opens the database as one of several gateways, by the name of cfg.Node.
func OpenNode(ctx context.Context, cfg SharedConfig) (*Node, error) {
	if cfg.Node == "" {
		return nil, errors.New("relay store: one of several gateways needs a name")
	}
	s, err := OpenShared(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Node{Shared: s, passed: make(map[mailbox.Device]int)}, nil
}

var (
	// ErrAlone is returned to one of several gateways when one has the database to itself.
	ErrAlone = errors.New("a gateway that is not configured as one of several has this database to itself: stop it, or configure it as one of them")
	// ErrNameInUse is returned when another gateway on the database has the same name.
	ErrNameInUse = errors.New("another gateway on this database has this name: each needs one of its own")
)

// Advisory locks of nodes: one for each name, by the row of that, and one for each kind of
// housekeeping.
const (
	nodeLocks = 0x56414c4800000000
	turnLocks = 0x56414c4a00000000
)

// nodeName is what a node may be called: it is shown to operators.
var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$`)

// A presence is what one of several gateways is to the others. Its line holds the locks that
// say that it is there, and hears what they tell.
type presence struct {
	name, version string
	me            process
	channel       string
	teller        *teller
	deaf          atomic.Pointer[error]
	law           atomic.Int64 // of Govern; -1: it was not called

	mu      sync.Mutex
	line    *store.Line // guarded by mu; nil while Follow has it, or when it was lost
	row     int64       // guarded by mu; in nodes
	started bool        // guarded by mu; the row says since when
	closed  bool        // guarded by mu
}

// join makes the store one of several.
func (s *Shared) join(ctx context.Context, name, version string) error {
	if !nodeName.MatchString(name) {
		return fmt.Errorf("relay store: %q is no name for a node: letters a to z, digits, dots and hyphens, at most 64", name)
	}
	p := &presence{name: name, version: version, channel: "valise_relay_" + hex.EncodeToString(s.id[:8])}
	_, _ = rand.Read(p.me[:]) // never fails
	p.law.Store(-1)
	p.setDeaf(errors.New("relay store: it was not listened yet"))
	line, err := s.appear(ctx, p)
	if err != nil {
		return err
	}
	p.line, p.teller = line, newTeller(s.db, p.me, p.channel)
	s.node = p
	return nil
}

// appear takes the locks of a node on a new line. A predecessor may be about to end: it
// waits a moment for its locks.
func (s *Shared) appear(ctx context.Context, p *presence) (_ *store.Line, err error) {
	line, err := s.db.Line(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, line.Close())
		}
	}()
	if err := lockSoon(ctx, line, aloneLock, true, ErrAlone); err != nil {
		return nil, err
	}
	var row int64
	if err := line.Row(ctx, `INSERT INTO nodes (name, version, started, seen) VALUES ($1, $2, 0, 0)
		ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id`, p.name, p.version).Scan(&row); err != nil {
		return nil, err
	}
	if err := lockSoon(ctx, line, nodeLocks|row&0xffffffff, false, fmt.Errorf("node %q: %w", p.name, ErrNameInUse)); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	query := `UPDATE nodes SET version = $1, seen = ` + serverTime + ` WHERE id = $2`
	if !p.started {
		query = `UPDATE nodes SET version = $1, seen = ` + serverTime + `, started = ` + serverTime + ` WHERE id = $2`
	}
	if err := line.Do(ctx, query, p.version, row); err != nil {
		return nil, err
	}
	p.row, p.started = row, true
	return line, line.Do(ctx, `DELETE FROM nodes WHERE seen < `+serverTime+` - $1`, forgottenNode.Milliseconds())
}

// serverTime is one clock for all gateways, in milliseconds.
const serverTime = `CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)`

// lockSoon takes a lock, and waits a moment for who has it.
func lockSoon(ctx context.Context, line *store.Line, lock int64, shared bool, refusal error) error {
	for range lockAttempts {
		ours, err := line.Lock(ctx, lock, shared)
		if err != nil || ours {
			return err
		}
		if sleep(ctx, lockPause); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return refusal
}

// leave gives everything of the presence back.
func (p *presence) leave() {
	p.teller.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.line != nil {
		_ = p.line.Close() // it may have ended long ago
		p.line = nil
	}
}

func (p *presence) setDeaf(err error) { p.deaf.Store(&err) }

// Tell implements mailbox.Node.
func (s *Node) Tell(n mailbox.News) { s.node.teller.tell(n) }

// Deaf implements mailbox.Node.
func (s *Node) Deaf() error { return *s.node.deaf.Load() }

// Nodes implements mailbox.Node. Who looks on may ask too.
func (s *Shared) Nodes(ctx context.Context) (list []mailbox.NodeSign, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		list = nil
		rows, err := tx.QueryContext(ctx, `SELECT n.name, n.version, n.started, n.seen, EXISTS (SELECT 1 FROM pg_locks l
			WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
			AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND CAST(l.classid AS BIGINT) = $1 AND CAST(l.objid AS BIGINT) = n.id % $2)
			FROM nodes n ORDER BY n.name LIMIT $3`, int64(nodeLocks>>32), int64(1<<32), maxNodes)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n mailbox.NodeSign
			var started, seen int64
			if err := rows.Scan(&n.Name, &n.Version, &started, &seen, &n.Alive); err != nil {
				return err
			}
			n.Started, n.Seen = time.UnixMilli(started), time.UnixMilli(seen)
			list = append(list, n)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("relay store: list nodes: %w", err)
	}
	return list, nil
}

// Latest implements mailbox.Node.
func (s *Node) Latest(ctx context.Context, devices []mailbox.Device) (map[mailbox.Device]uint64, error) {
	return s.byDevice(ctx, `SELECT d.device, s.last FROM devices d JOIN states s ON s.device = d.id WHERE d.device = ANY($1)`, devices)
}

// Moved implements mailbox.Node.
func (s *Node) Moved(ctx context.Context, seats []mailbox.Seat) (moved []mailbox.Device, err error) {
	devices := make([]mailbox.Device, len(seats))
	for i := range seats {
		devices[i] = seats[i].Device
	}
	turns, err := s.byDevice(ctx, `SELECT device, turn FROM devices WHERE device = ANY($1)`, devices)
	if err != nil {
		return nil, err
	}
	for _, seat := range seats {
		if turns[seat.Device] > seat.Turn {
			moved = append(moved, seat.Device)
		}
	}
	return moved, nil
}

// byDevice asks for a number of each of some devices.
func (s *Shared) byDevice(ctx context.Context, query string, devices []mailbox.Device) (numbers map[mailbox.Device]uint64, err error) {
	err = s.db.Look(ctx, func(rows store.Rows) error {
		numbers = make(map[mailbox.Device]uint64, len(devices))
		for rows.Next() {
			var raw []byte
			var n int64
			if err := rows.Scan(&raw, &n); err != nil {
				return err
			}
			if len(raw) != len(mailbox.Device{}) || n < 0 {
				return errors.New("a device's row is damaged")
			}
			numbers[mailbox.Device(raw)] = uint64(n)
		}
		return rows.Err()
	}, query, raw(devices))
	if err != nil {
		return nil, fmt.Errorf("relay store: %w", err)
	}
	return numbers, nil
}
