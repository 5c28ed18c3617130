// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"valise/enroll/enrolltest"
	"valise/internal/testenv"
)

// A counter stands between an authority and PostgreSQL and counts what it answers.
type counter struct {
	trips atomic.Int64 // times that it was waited for: statements, one after the other
	ends  atomic.Int64 // transactions that came to an end, also those of one statement
}

// countPostgres returns a connection string that leads to the same database by way of
// the counter.
func countPostgres(t *testing.T, db *testenv.Database) (string, *counter) {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	c := new(counter)
	var all sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); all.Wait() })
	all.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", filepath.Join(db.Socket, ".s.PGSQL.5432"))
			if err != nil {
				t.Error(err)
				_ = near.Close()
				return
			}
			all.Go(func() { _, _ = io.Copy(far, near); _ = far.Close() })
			all.Go(func() {
				if err := c.answers(near, far); err != nil {
					t.Error(err)
				}
				_ = near.Close()
			})
		}
	})
	return fmt.Sprintf("host=%s port=5432 user=valise dbname=%s sslmode=disable", dir, db.Name), c
}

// answers copies what the server says. Each answer ends with ReadyForQuery, which says
// whether a transaction is open (PostgreSQL's documentation, Section 55.7).
func (c *counter) answers(to io.Writer, from io.Reader) error {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(from, head); err != nil {
			return nil // the connection has ended
		}
		size := binary.BigEndian.Uint32(head[1:])
		if size < 4 || size > 1<<24 {
			return errors.New("the answer is not PostgreSQL's")
		}
		message := append(head, make([]byte, size-4)...)
		if _, err := io.ReadFull(from, message[5:]); err != nil {
			return nil
		}
		if head[0] == 'Z' {
			c.trips.Add(1)
			if message[5] == 'I' {
				c.ends.Add(1)
			}
		}
		if _, err := to.Write(message); err != nil {
			return nil
		}
	}
}

// What one enrollment under an account asks of PostgreSQL sets the pace of an
// authority: these bounds are to fall, and never to rise unnoticed.
func TestStatementsPerEnrollment(t *testing.T) {
	const maxTrips, maxEnds = 22, 16
	dsn, count := countPostgres(t, testenv.Postgres(t))
	s := newSite(t, options{database: dsn})
	card, c := s.card(), s.client()
	s.check(c.Enroll(s.invite("alice"), card), "alice")
	s.check(c.Enroll(s.invite("alice"), card), "alice") // every statement is known to the connection now
	trips, ends := count.trips.Load(), count.ends.Load()
	const times = 4
	for range times {
		o, r := c.NewOrder(card.ID(t).String())
		if o == nil {
			t.Fatalf("order: %d %s", r.Status, r.Body)
		}
		if ch, r := c.Attest(o, card.Answer(t, c.KeyAuthorization(o))); ch == nil || ch.Status != "valid" {
			t.Fatalf("attest: %d %s", r.Status, r.Body)
		}
		done, r := c.Finish(o, enrolltest.CSR(t, card.Key))
		if done == nil || done.Status != "valid" {
			t.Fatalf("finalize: %d %s", r.Status, r.Body)
		}
		s.check(c.Fetch(done), "alice")
	}
	perTrips, perEnds := float64(count.trips.Load()-trips)/times, float64(count.ends.Load()-ends)/times
	t.Logf("%.2f statements, %.2f transactions for each certificate", perTrips, perEnds)
	if perTrips > maxTrips || perEnds > maxEnds {
		t.Errorf("%.2f statements, %.2f transactions for each certificate, want at most %d and %d", perTrips, perEnds, maxTrips, maxEnds)
	}
}
