// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"valise/hsm"
)

// A key that rotates has successors under its label with a number: "tls", "tls-2",
// "tls-3" and so on. So no configuration changes when one does: what a manifest or a
// certificate says tells which of them is in use. Those of before may be removed from the
// token.

// MaxSuccessors bounds where a key is looked for.
const MaxSuccessors = 32

// Successor is the label of the nth key of a label, from 1.
func Successor(label string, n int) string {
	if n == 1 {
		return label
	}
	return fmt.Sprintf("%s-%d", label, n)
}

// FindSuccessor opens the key among those of a label that is says yes to; nil if there is
// none.
func FindSuccessor(ctx context.Context, token hsm.Token, label string, is func(crypto.PublicKey) bool) (hsm.Key, error) {
	for n := 1; n <= MaxSuccessors; n++ {
		key, err := token.Key(ctx, Successor(label, n))
		switch {
		case errors.Is(err, hsm.ErrNoKey):
			continue
		case err != nil:
			return nil, fmt.Errorf("key %q: %w", Successor(label, n), err)
		case is(key.Public()):
			return key, nil
		}
		if err := key.Close(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// LastSuccessor opens the last key of a label, nil if there is none, and returns its
// number.
func LastSuccessor(ctx context.Context, token hsm.Token, label string) (last hsm.Key, number int, err error) {
	for n := 1; n <= MaxSuccessors; n++ {
		key, err := token.Key(ctx, Successor(label, n))
		if errors.Is(err, hsm.ErrNoKey) {
			continue
		}
		if last != nil {
			err = errors.Join(err, last.Close())
		}
		if err != nil {
			return nil, 0, fmt.Errorf("key %q: %w", Successor(label, n), err)
		}
		last, number = key, n
	}
	return last, number, nil
}
