// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

// A statement whose connection ended is run again; one that the database refused is
// not; and none for ever.
func TestRetrySingle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		for _, c := range []struct {
			name  string
			fails int
			err   error
			runs  int
			ends  bool
		}{
			{"at once", 0, nil, 1, true},
			{"lost twice", 2, io.ErrUnexpectedEOF, 3, true},
			{"lost for ever", 1000, io.ErrUnexpectedEOF, maxAttempts, false},
			{"refused", 1000, refused, 1, false},
		} {
			runs := 0
			err := new(DB).retry(t.Context(), func() error {
				if runs++; runs <= c.fails {
					return c.err
				}
				return nil
			}, lost)
			if runs != c.runs || (err == nil) != c.ends || !c.ends && !errors.Is(err, c.err) {
				t.Errorf("%s: %d runs, %v", c.name, runs, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		runs := 0
		if err := new(DB).retry(ctx, func() error { runs++; return io.EOF }, lost); runs != 1 || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %d runs, %v", runs, err)
		}
	})
}
