// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"valise/identity"
	"valise/internal/daemon"
	"valise/internal/store"
	"valise/internal/store/authority"
)

// backupFiles are the files that belong to an authority beside its database. The
// token's PIN, the configuration and the audit stream are not among them.
var backupFiles = []string{rootFile, foundingFile, manifestFile, recordFile, chainFile}

// maxBackupFile bounds one of them.
const maxBackupFile = 4 << 20

type backupCmd struct {
	common
	Out string `required:"" placeholder:"FILE" help:"Where to write it; the file must not exist."`
}

// Run writes a backup while the daemon runs. It is in place when it is complete, read
// back and on the disk, or not at all.
func (cmd *backupCmd) Run(ctx context.Context) (err error) {
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	b := authority.Backup{
		Domain: o.cfg.Domain, Root: sha256.Sum256(o.chain[1].Raw), Time: time.Now().UTC().Truncate(time.Second),
	}
	if b.Files, err = o.cfg.backupFiles(); err != nil {
		return err
	}
	if _, err := os.Lstat(cmd.Out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists: name a new file for each backup", cmd.Out)
	}
	written, err := writeBackup(ctx, o.store, cmd.Out, b)
	if err != nil {
		return err
	}
	fmt.Printf("backup of %s as of %s: %d leaves, %d rows\n", written.Domain, written.Time.Format(time.RFC3339), written.Head.N, written.Rows)
	return o.audit.Event(ctx, "backup made", slog.Int64("leaves", written.Head.N), slog.Int64("rows", written.Rows))
}

// writeBackup returns what the file says of itself.
func writeBackup(ctx context.Context, s *authority.Store, out string, b authority.Backup) (*authority.Backup, error) {
	var written *authority.Backup
	err := daemon.WriteNew(out, func(w io.Writer) error { return s.Dump(ctx, w, b) }, func(r io.ReadSeeker) (err error) {
		written, err = authority.ReadBackup(r)
		return err
	})
	return written, err
}

// backupFiles reads the files that are there.
func (c *Config) backupFiles() ([]authority.BackupFile, error) {
	names := slices.Clone(backupFiles)
	officers, err := fs.Glob(os.DirFS(c.Data), officersDir+"/*.pem")
	if err != nil {
		return nil, err
	}
	var files []authority.BackupFile
	for _, name := range append(names, officers...) {
		data, err := os.ReadFile(c.path(filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(data) > maxBackupFile {
			err = fmt.Errorf("%s has %d bytes", c.path(name), len(data))
		}
		if err != nil {
			return nil, err
		}
		files = append(files, authority.BackupFile{Name: name, Data: data})
	}
	return files, nil
}

type restoreCmd struct {
	common
	From            string `required:"" type:"existingfile" placeholder:"FILE" help:"A backup that this command made."`
	WithoutGateways bool   `help:"Go on at once, for an authority that no gateway has ever asked. If one has, it and this authority will contradict each other: numbers that were used are used again, and who was suspended since the backup is back."`
}

// Run restores an authority into an empty place: data directory and database. The token
// must be the one that the authority had, or be replaced by "manifest renew" afterwards.
func (cmd *restoreCmd) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(cmd.Config)
	if err != nil {
		return err
	}
	f, err := os.Open(cmd.From)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := authority.ReadBackup(f)
	if err != nil {
		return err
	}
	if err := cfg.checkRestore(ctx, b); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	audit, err := cfg.openAudit()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audit.Close()) }()
	if err := cfg.restoreDatabase(ctx, f, cmd.WithoutGateways); err != nil {
		return err
	}
	// What was restored is behind what this machine may have seen, and known to be.
	if err := os.Remove(cfg.path(markFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := cfg.restoreFiles(b.Files); err != nil {
		return err
	}
	return errors.Join(tellRestored(b, cmd.WithoutGateways), audit.Event(ctx, "authority restored", slog.Time("backup", b.Time),
		slog.Int64("leaves", b.Head.N), slog.Bool("without_gateways", cmd.WithoutGateways)))
}

func tellRestored(b *authority.Backup, without bool) error {
	fmt.Printf("restored %s as of %s: %d leaves, %d rows\nInvitations and orders that were open then are void.\n",
		b.Domain, b.Time.Format(time.RFC3339), b.Head.N, b.Rows)
	if without {
		fmt.Println("No gateway is waited for. If one ever had a newer checkpoint or bulletin of this authority, stop now and restore without --without-gateways.")
	} else {
		fmt.Println("The daemon will issue and sign nothing until gateways have told what they know and what is missing here was taken in.")
	}
	return nil
}

// checkRestore makes sure that the backup is this authority's, and the place empty.
func (c *Config) checkRestore(ctx context.Context, b *authority.Backup) error {
	if b.Domain != c.Domain {
		return fmt.Errorf("the backup is of %s, and the configuration of %s", b.Domain, c.Domain)
	}
	rooted := false
	for _, f := range b.Files {
		officer, inDir := strings.CutPrefix(f.Name, officersDir+"/")
		if !slices.Contains(backupFiles, f.Name) && (!inDir || path.Base(officer) != officer || !strings.HasSuffix(officer, ".pem")) {
			return fmt.Errorf("the backup holds a file that does not belong there: %q", f.Name)
		}
		if _, err := os.Lstat(c.path(filepath.FromSlash(f.Name))); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: restore into an empty data directory", c.path(f.Name))
		}
		if f.Name == chainFile {
			chain, err := parseChain(chainFile, f.Data)
			if err != nil {
				return err
			}
			if sha256.Sum256(chain[1].Raw) != b.Root {
				return fmt.Errorf("%s in the backup is under another root than the backup says", chainFile)
			}
			fmt.Printf("root sha256 %s\n", identity.Fingerprint(chain[1]))
			rooted = true
		}
	}
	if !rooted {
		return fmt.Errorf("the backup lacks %s", chainFile)
	}
	if err := c.vacantDatabase(ctx); err != nil {
		return fmt.Errorf("restore into an empty database; what an interrupted restore left must be removed: %w", err)
	}
	return nil
}

// restoreDatabase makes and fills the database. A file that it made and could not fill
// is removed again.
func (c *Config) restoreDatabase(ctx context.Context, backup io.ReadSeeker, without bool) (err error) {
	name, err := c.database()
	if err != nil {
		return err
	}
	s, err := authority.Create(ctx, name)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.Close())
		if err != nil && !store.IsPostgreSQL(name) {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	source := func() (io.Reader, error) {
		_, err := backup.Seek(0, io.SeekStart)
		return backup, err
	}
	if err := s.Load(ctx, source, time.Now()); err != nil || !without {
		return err
	}
	return s.Recover(ctx, func(tx *authority.Tx) error { return tx.ClearFlag(authority.FlagRestored) })
}

// restoreFiles writes chain.pem last, because every other command looks for it first.
func (c *Config) restoreFiles(files []authority.BackupFile) error {
	slices.SortStableFunc(files, func(a, b authority.BackupFile) int {
		return bytes.Compare(last(a.Name), last(b.Name))
	})
	for _, f := range files {
		name := c.path(filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := writeNew(name, f.Data); err != nil {
			return err
		}
	}
	return daemon.SyncDir(c.Data)
}

// last sorts chain.pem behind everything.
func last(name string) []byte {
	if name == chainFile {
		return []byte{1}
	}
	return []byte{0}
}

// checkRestored turns /healthz red while a restored authority waits for gateways.
func (o *office) checkRestored(ctx context.Context) error {
	return o.store.View(ctx, (*authority.Tx).Writable)
}
