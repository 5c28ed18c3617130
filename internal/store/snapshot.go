// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
)

// Snapshot writes the present state of an SQLite file, which this or another process
// may have open and write to, into a new file of mode 0600. Writers go on meanwhile.
func Snapshot(ctx context.Context, path, into string) (err error) {
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	f, err := os.OpenFile(into, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // SQLite would use the umask's mode
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("store: snapshot of %s: %w", path, err), os.Remove(into))
		}
	}()
	if err := f.Close(); err != nil {
		return err
	}
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(30000)", "trusted_schema(0)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: uriPath(filepath.ToSlash(path)), RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO $1", into)
	return errors.Join(err, db.Close())
}
