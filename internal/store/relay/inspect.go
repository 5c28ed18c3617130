// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"io/fs"

	"valise/internal/store"
)

// Inspect looks at a gateway's database, a file or a PostgreSQL connection string,
// without changing it and beside a gateway that uses it.
func Inspect(ctx context.Context, database string) (*store.Facts, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return store.Inspect(ctx, store.Config{Path: database, Migrations: sub, ApplicationID: ApplicationID})
}
