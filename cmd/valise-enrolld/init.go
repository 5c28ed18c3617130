// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"valise/enroll/ca"
	"valise/hsm"
	"valise/identity"
	"valise/internal/daemon"
)

type initCmd struct{ common }

// Run makes keys and certificates. It changes nothing if any of them exists: an
// authority that is founded twice has two roots, and neither half is trusted.
func (cmd *initCmd) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(cmd.Config)
	if err != nil {
		return err
	}
	for _, name := range []string{rootFile, chainFile} {
		if _, err := os.Lstat(cfg.path(name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: this authority was made before (init runs once)", cfg.path(name))
		}
	}
	if err := cfg.vacantDatabase(ctx); err != nil {
		return fmt.Errorf("this authority was made before (init runs once): %w", err)
	}
	token, err := openToken(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	if err := vacant(ctx, cfg, token); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	audit, err := daemon.OpenAudit(cfg.Audit)
	if err != nil {
		return err
	}
	defer audit.Close()
	return found(ctx, cfg, token, audit)
}

// vacant makes sure that all three labels are free before the first key is made.
func vacant(ctx context.Context, cfg *Config, token hsm.Token) error {
	for _, label := range []string{cfg.Token.RootKey, cfg.Token.IssuerKey, cfg.Token.TLSKey} {
		key, err := token.Key(ctx, label)
		if err == nil {
			return errors.Join(fmt.Errorf("key %q is in the token already: name other labels, or remove it with the HSM's own tool", label), key.Close())
		}
		if !errors.Is(err, hsm.ErrNoKey) {
			return fmt.Errorf("key %q: %w", label, err)
		}
	}
	return nil
}

func found(ctx context.Context, cfg *Config, token hsm.Token, audit *daemon.Audit) error {
	algorithm, err := cfg.algorithm()
	if err != nil {
		return err
	}
	made := make(map[string]hsm.Key)
	for _, label := range []string{cfg.Token.RootKey, cfg.Token.IssuerKey, cfg.Token.TLSKey} {
		key, err := token.Generate(ctx, label, hsm.GenerateOptions{Algorithm: algorithm, Name: label})
		if err != nil {
			return fmt.Errorf("make key %q: %w", label, err)
		}
		defer key.Close()
		made[label] = key
	}
	root, issuing, err := ca.Found(cfg.Domain, made[cfg.Token.RootKey], made[cfg.Token.IssuerKey], time.Now())
	if err != nil {
		return err
	}
	store, err := cfg.createDatabase(ctx)
	if err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	if err := writeNew(cfg.path(rootFile), encodePEM(root.Raw)); err != nil {
		return err
	}
	// Last, because every other command looks for it first.
	if err := writeNew(cfg.path(chainFile), encodePEM(issuing.Raw, root.Raw)); err != nil {
		return err
	}
	fmt.Printf("authority of %s\nroot sha256 %s\nissuing certificate valid until %s\n",
		cfg.Domain, identity.Fingerprint(root), issuing.NotAfter.Format(time.DateOnly))
	return audit.Event(ctx, "authority founded", slog.String("domain", cfg.Domain),
		slog.String("root", identity.Fingerprint(root)), slog.String("issuing", identity.Fingerprint(issuing)))
}

// writeNew writes a file that must not exist, to the disk.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
