// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"time"

	"valise/gateway/mailbox"
)

type Config struct {
	Dir    string
	Store  mailbox.Store
	Quota  uint64
	Expiry time.Duration
}
type Store struct{ cfg Config }

func Open(cfg Config) (*Store, error)                            { return &Store{cfg}, nil }
func (s *Store) Expire(ctx context.Context, now time.Time) error { return nil }
