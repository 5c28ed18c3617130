// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"valise/enroll/ceremony"
	"valise/hsm"
	"valise/identity"
	"valise/internal/daemon"
)

type initCmd struct {
	common
	Ceremony string `type:"existingfile" placeholder:"FILE" help:"Found an authority with officers, as this plan says."`
}

// Run makes keys, certificates, founding record and first manifest. Everything that
// can be wrong is found before the first key is made. It changes nothing if anything
// exists: an authority that is founded twice has two roots, and neither half is
// trusted.
func (cmd *initCmd) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig(cmd.Config)
	if err != nil {
		return err
	}
	if err := unfounded(ctx, cfg); err != nil {
		return err
	}
	f := &founder{cfg: cfg, now: time.Now().UTC().Truncate(time.Second)}
	if cmd.Ceremony != "" {
		if err := f.invite(cmd.Ceremony); err != nil {
			return err
		}
	}
	if f.hardware, err = openHardware(ctx, cfg, true); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.hardware.close()) }()
	if err := f.checkTokens(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	audit, err := cfg.openAudit()
	if err != nil {
		return err
	}
	defer audit.Close()
	if err := f.found(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, unfinished(cfg))
	}
	return f.report(ctx, audit)
}

// unfinishedFile is there from before the first key is made until all is done.
const unfinishedFile = "init-unfinished"

// unfinished says what to do about a founding that stopped half way.
func unfinished(cfg *Config) string {
	database := ""
	if cfg.Database != "" || cfg.DatabaseSource != "" {
		database = ", empty the database that the configuration names"
	}
	return fmt.Sprintf("this founding was not finished, and nothing that it made counts. Begin anew: remove the keys %q, %q, %q, %q and %q "+
		"from the token with the HSM's own tool (or give them other labels in the configuration), remove %s%s, and run init again",
		cfg.Token.RootKey, cfg.Token.IssuerKey, cfg.Token.TLSKey, cfg.Token.BulletinKey, cfg.Token.LedgerKey, cfg.Data, database)
}

// unfounded makes sure that nothing is there, finished or not.
func unfounded(ctx context.Context, cfg *Config) error {
	if _, err := os.Lstat(cfg.path(unfinishedFile)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists: %s", cfg.path(unfinishedFile), unfinished(cfg))
	}
	for _, name := range []string{rootFile, chainFile, foundingFile, manifestFile, recordFile, officersDir} {
		if _, err := os.Lstat(cfg.path(name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: this authority was made before (init runs once)", cfg.path(name))
		}
	}
	if err := cfg.vacantDatabase(ctx); err != nil {
		return fmt.Errorf("this authority was made before (init runs once): %w", err)
	}
	return nil
}

// invite reads the plan and judges each application, as far as this needs no token.
func (f *founder) invite(path string) error {
	text, err := readBounded(path, ceremony.MaxPlanSize)
	if err != nil {
		return err
	}
	if f.plan, err = ceremony.ParsePlan(text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if f.plan.Domain != f.cfg.Domain {
		return fmt.Errorf("the plan is for %s and the configuration for %s", f.plan.Domain, f.cfg.Domain)
	}
	if err := f.plan.Today(f.now); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	config := EndorsementConfig{BuiltIn: f.plan.Endorsements.UseBuiltIn()}
	for _, file := range f.plan.Endorsements.Roots {
		config.Roots = append(config.Roots, beside(dir, file))
	}
	if f.endorsements, err = loadEndorsements(&config); err != nil {
		return err
	}
	var all []*ceremony.Application
	for i := range f.plan.Officers {
		n := &f.plan.Officers[i]
		o, err := f.examine(n, beside(dir, n.Application))
		if err != nil {
			return fmt.Errorf("%s: %w", n.Address, err)
		}
		f.officers, all = append(f.officers, o), append(all, o.application)
	}
	return ceremony.DistinctKeys(all)
}

// examine judges one application.
func (f *founder) examine(n *ceremony.Nominee, path string) (*nominee, error) {
	data, err := readBounded(path, ceremony.MaxApplicationSize)
	if err != nil {
		return nil, err
	}
	a, err := ceremony.ParseApplication(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := n.Match(a); err != nil {
		return nil, err
	}
	result, err := a.Appraise(f.plan.Occasion(), f.endorsements, &f.plan.OfficerAppraisal, f.now)
	if err != nil {
		return nil, err
	}
	if !result.Accepted() || identity.Tier(result.Tier) != identity.TierHardware {
		for _, rule := range result.Reasons {
			if !rule.Passed {
				return nil, fmt.Errorf("the card is not accepted (%s): %s: %s", rule.Reason, rule.Name, rule.Detail)
			}
		}
		return nil, errors.New("the card is not accepted")
	}
	return &nominee{application: a, file: sha256.Sum256(data), result: result}, nil
}

// checkTokens makes sure that the tokens are those of the plan, and empty.
func (f *founder) checkTokens(ctx context.Context) error {
	if f.plan != nil {
		for _, t := range []struct {
			name, want string
			is         hsm.TokenInfo
		}{
			{"root", f.plan.Tokens.Root, f.hardware.tokenOf(useRoot).Info()}, {"issuing", f.plan.Tokens.Issuing, f.hardware.tokenOf(useIssuing).Info()},
		} {
			if t.want != t.is.Label && t.want != t.is.Serial {
				return fmt.Errorf("tokens.%s: the plan says %q, and the configuration opens %q with serial number %s", t.name, t.want, t.is.Label, t.is.Serial)
			}
		}
	}
	if err := f.hardware.open(ctx, nil); err != nil {
		return err
	}
	return f.hardware.vacant()
}

// report prints what was founded, and puts it into the audit stream.
func (f *founder) report(ctx context.Context, audit *daemon.Audit) error {
	fmt.Printf("authority of %s\nroot sha256 %s\nissuing certificate valid until %s\n",
		f.cfg.Domain, identity.Fingerprint(f.root), f.issuing.NotAfter.Format(time.DateOnly))
	attrs := []slog.Attr{
		slog.String("domain", f.cfg.Domain), slog.String("root", identity.Fingerprint(f.root)),
		slog.String("issuing", identity.Fingerprint(f.issuing)), slog.Int("officers", len(f.officers)),
	}
	if f.plan != nil {
		for _, o := range f.officers {
			fmt.Printf("%s %s: %s\n", o.application.Role, o.application.Address, f.cfg.path(officerFile(o.application.Address)))
		}
		sum, err := ceremony.CheckRecord(f.record)
		if err != nil {
			return err
		}
		fmt.Printf("record of the ceremony: %s\nrecord sha256 %s\nPrint the record and have all who were present sign it. Then put the root's token away.\n", f.cfg.path(recordFile), sum)
		attrs = append(attrs, slog.String("ceremony", f.plan.Name), slog.String("record", sum))
	}
	return audit.Event(ctx, "authority founded", attrs...)
}

// beside makes a path relative to a directory absolute.
func beside(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// readBounded reads a file that must not be larger than a bound.
func readBounded(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, most)
	}
	return os.ReadFile(path)
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

// replace writes a file in the place of another one, whole or not at all. Two processes
// may do it at once.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return daemon.SyncDir(filepath.Dir(path))
}
