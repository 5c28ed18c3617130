// SPDX-License-Identifier: Apache-2.0

//go:build ha

package patroni_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"valise/internal/store"
)

// A writer writes numbers, one transaction each, and knows which were acknowledged.
type writer struct {
	db           *store.DB
	known        []int64
	acknowledged atomic.Int64
	longest      atomic.Int64
}

func (w *writer) write(ctx context.Context) {
	last := time.Now()
	for id := int64(1); ctx.Err() == nil; id++ {
		err := w.db.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES ($1)", id)
			return err
		})
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		w.known = append(w.known, id)
		w.acknowledged.Add(1)
		w.longest.Store(max(w.longest.Load(), int64(time.Since(last))))
		last = time.Now()
	}
}

// until waits for so many more.
func (w *writer) until(t *testing.T, more int64) {
	t.Helper()
	want := w.acknowledged.Load() + more
	for begin := time.Now(); w.acknowledged.Load() < want; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 2*time.Minute {
			t.Fatalf("%d were acknowledged, %d more are awaited", w.acknowledged.Load(), want-w.acknowledged.Load())
		}
	}
}

// more lets some be written that nobody waits for.
func (w *writer) more() { time.Sleep(300 * time.Millisecond) }

func errJoin(a, b error) error { return errors.Join(a, b) }
