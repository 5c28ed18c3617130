// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"valise/internal/daemon"
	"valise/internal/store/relay"
)

type backupCommand struct {
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
	Out    string `required:"" placeholder:"FILE" help:"Where to write it; the file must not exist."`
}

// errPostgreSQL says how a database that is not the gateway's own is kept.
var errPostgreSQL = errors.New("the database is in a PostgreSQL server: back it up with pg_dump, and after a pg_restore run valise-gatewayd restored before the gateway starts")

// Run writes a backup, while the gateway runs or not. It is in place when it is
// complete, read back and on the disk, or not at all.
func (c *backupCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadStored(c.Config)
	if err != nil {
		return err
	}
	audit, err := cfg.openAudit(daemon.NewLog(os.Stderr, cfg.LogLevel))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audit.Close()) }()
	if _, err := os.Lstat(c.Out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists: name a new file for each backup", c.Out)
	}
	b, err := cfg.writeBackup(ctx, c.Out)
	if err != nil {
		return err
	}
	fmt.Printf("backup of %s as of %s: the database and %d batches behind it%s\n", b.Domain, b.Time.Format(time.RFC3339), b.Batches,
		map[bool]string{true: ", the copy of the authority's record"}[b.Record])
	fmt.Println("Files on their way (blobs/), keys, configuration and audit stream are not in it: copy blobs/ after each backup, its files never change.")
	return audit.Event(ctx, "backup made", slog.Time("as_of", b.Time))
}

// loadStored reads the configuration of a gateway with a database of its own.
func loadStored(path string) (*Config, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	if err := cfg.checkServe(); err != nil {
		return nil, err
	}
	if cfg.Database != "" || cfg.DatabaseSource != "" {
		return nil, errPostgreSQL
	}
	return cfg, nil
}

func (c *Config) writeBackup(ctx context.Context, out string) (_ *relay.Backup, err error) {
	scratch, err := os.MkdirTemp(filepath.Dir(out), ".backup-*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	from := relay.Source{Path: filepath.Join(c.Data, relay.DatabaseName), Record: filepath.Join(c.Data, relay.RecordName), Domain: c.Domain, Scratch: scratch}
	if _, err := os.Lstat(from.Record); errors.Is(err, fs.ErrNotExist) {
		from.Record = ""
	}
	var b *relay.Backup
	err = daemon.WriteNew(out, func(w io.Writer) error {
		_, err := relay.WriteBackup(ctx, from, w)
		return err
	}, func(r io.ReadSeeker) (err error) {
		b, err = relay.ReadBackup(r)
		return err
	})
	return b, err
}

type restoreCommand struct {
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
	From   string `required:"" type:"existingfile" placeholder:"FILE" help:"A backup that this command made."`
}

// Run restores a gateway's store into an empty data directory, marked as restored.
func (c *restoreCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadStored(c.Config)
	if err != nil {
		return err
	}
	f, err := os.Open(c.From)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := relay.ReadBackup(f)
	if err != nil {
		return err
	}
	if b.Domain != cfg.Domain {
		return fmt.Errorf("the backup is of %s, and the configuration of %s", b.Domain, cfg.Domain)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	audit, err := cfg.openAudit(daemon.NewLog(os.Stderr, cfg.LogLevel))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audit.Close()) }()
	_, r, err := relay.Restore(ctx, f, cfg.Data, time.Now())
	if err != nil {
		return err
	}
	return cfg.tellRestored(ctx, audit, b.Time, r)
}

type restoredCommand struct {
	Config string    `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration file."`
	Since  time.Time `required:"" placeholder:"TIME" help:"When the backup was made, as 2026-11-22T08:00:00Z. Of a gateway that has no backup: when it was last in order."`

	Elsewhere bool `help:"This was said of the database at another of its gateways already: only let this gateway take it as it is. Needed where the database before it is gone without a backup, or was restored twice; otherwise the other gateways find out by themselves."`
}

// Help is what --help prints below the usage.
func (*restoredCommand) Help() string {
	return `Where several gateways share a database: stop all of them, pg_restore, run this once, at
one of them, and start all. Until then none of them starts that has used the database after
the backup was made, and while one runs this command refuses.`
}

// Run marks a database that was put back by other means as restored: a pg_restore, a
// snapshot of a disk, a copy of the data directory; or a new one, whose predecessor is
// gone without a backup.
func (c *restoredCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(c.Config)
	if err == nil {
		err = cfg.checkServe()
	}
	if err != nil {
		return err
	}
	dsn, err := cfg.postgreSQL()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	audit, err := cfg.openAudit(daemon.NewLog(os.Stderr, cfg.LogLevel))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audit.Close()) }()
	if c.Elsewhere {
		if dsn == "" {
			return errors.New("--elsewhere is for a database that several gateways share")
		}
		if err := os.Remove(cfg.markFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return audit.Event(ctx, "store restored elsewhere", slog.Time("backup", c.Since))
	}
	var r relay.Restoration
	if dsn != "" {
		r, err = relay.RestoredShared(ctx, relay.SharedConfig{Database: dsn}, c.Since, time.Now())
	} else {
		r, err = relay.Restored(ctx, relay.Config{Path: filepath.Join(cfg.Data, relay.DatabaseName)}, c.Since, time.Now())
	}
	if err != nil {
		return err
	}
	return cfg.tellRestored(ctx, audit, c.Since, r)
}

// tellRestored says what follows, and forgets what was noted of the store before.
func (c *Config) tellRestored(ctx context.Context, audit *daemon.Audit, since time.Time, r relay.Restoration) error {
	if err := os.Remove(c.markFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Printf("restored as of %s, %s ago: %d devices, %d conversations' groups\n",
		since.UTC().Format(time.RFC3339), time.Since(since).Round(time.Minute), r.Devices, r.Groups)
	fmt.Println("Each device is told when it connects. Conversations go on in new groups; what was acknowledged since the backup is asked for and sent again by the devices that wrote it.")
	fmt.Println("Officers' suspensions since the backup are not known here before the authority is reached: let it be reachable first.")
	return audit.Event(ctx, "store restored", slog.Time("backup", since), slog.Int64("devices", r.Devices), slog.Int64("groups", r.Groups))
}
