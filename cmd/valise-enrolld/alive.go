// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"valise/hsm"
	"valise/internal/keys"
)

// openTLS opens the HTTPS key, in its own token if it has one.
func (o *office) openTLS(ctx context.Context) (key hsm.Key, err error) {
	o.tlsToken = o.token
	if o.cfg.TLSToken.Apart() {
		if o.tlsToken, err = o.cfg.TLSToken.open(ctx); err != nil {
			return nil, fmt.Errorf("HTTPS token: %w", err)
		}
	}
	if key, err = keyInUse(ctx, o.tlsToken, nil, useTLS, o.cfg.Token.TLSKey); err != nil {
		return nil, fmt.Errorf("HTTPS key %q: %w", o.cfg.Token.TLSKey, err)
	}
	if o.watch != nil {
		key = keys.Timed(key, o.watch.Signs(useTLS))
	}
	return key, nil
}

// alive asks a token for a sign of life, which begins its recovery if there is none.
func alive(ctx context.Context, token hsm.Token) error {
	if checked, ok := token.(interface{ Check(context.Context) error }); ok {
		if err := checked.Check(ctx); err != nil {
			return err
		}
	}
	return healthy(token)
}

// healthy says what is known about a token, and asks nothing of it.
func healthy(token hsm.Token) error {
	if state, ok := token.(interface{ Health() hsm.Health }); ok {
		if s := state.Health(); !s.OK {
			return errors.Join(errors.New("the token does not answer"), s.Err)
		}
	}
	return nil
}
