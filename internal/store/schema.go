// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"regexp"
	"strconv"
	"time"

	"github.com/pressly/goose/v3"
)

// A schema changes while programs of the version before are still at work on it. So
// each step says which programs can go on after it: the line
//
//	-- oldest: 15
//
// in a migration says that programs whose own newest migration is 15 or later need not
// know of it. Without that line only programs that have the migration itself can use
// the database. The largest of these numbers stands in the database.
//
//   - What adds something (a table, a column with a default, an index) comes first, with
//     the line. Old and new programs run side by side.
//   - What takes something away, or changes what it means, comes in a later version,
//     without the line, when no program needs the old form any more. It is not made
//     while one is connected that is older than that (ErrOlder), and such a program
//     cannot connect afterwards (ErrNewer).
//
// Additive refuses texts that say the first and do the second.

// ErrOlder is returned when the schema cannot be brought up to date, because programs use
// the database that could not go on afterwards. Nothing was changed.
var ErrOlder = errors.New("programs of an older version use this database, which could not go on with the new schema: stop all of them, then start this one")

// ErrOccupied is returned when transactions kept a migration from the tables that it
// changes, for longer than it tries.
var ErrOccupied = errors.New("a long transaction, of a backup or of a person, keeps the schema from being brought up to date: end it, then start this program again")

var oldestLine = regexp.MustCompile(`(?m)^-- oldest: ([0-9]{1,9})$`)

// levels are the versions that a program knows.
type levels struct {
	own    int64           // its newest
	oldest map[int64]int64 // by migration: the programs that can go on after it
}

// readLevels reads what the migrations say of themselves.
func readLevels(source fs.FS) (levels, error) {
	l := levels{oldest: make(map[int64]int64)}
	names, err := fs.Glob(source, "*.sql")
	if err != nil {
		return l, err
	}
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return l, fmt.Errorf("migration %s: %w", name, err)
		}
		text, err := fs.ReadFile(source, name)
		if err != nil {
			return l, err
		}
		if l.oldest[version], err = oldestOf(text, version); err != nil {
			return l, fmt.Errorf("migration %s: %w", name, err)
		}
		l.own = max(l.own, version)
	}
	return l, nil
}

func oldestOf(text []byte, version int64) (int64, error) {
	found := oldestLine.FindAllSubmatch(text, 2)
	if len(found) == 0 {
		return version, nil
	}
	oldest, err := strconv.ParseInt(string(found[0][1]), 10, 64)
	if err != nil || len(found) > 1 || oldest < 1 || oldest > version {
		return 0, fmt.Errorf("want one line \"-- oldest: N\", with N from 1 to %d", version)
	}
	return oldest, nil
}

// needed is the oldest program that can use a schema of this version.
func (l levels) needed(version int64) (oldest int64) {
	for v, o := range l.oldest {
		if v <= version {
			oldest = max(oldest, o)
		}
	}
	return oldest
}

// A ground is a database whose schema is brought up to date.
type ground interface {
	// recorded returns the oldest program that the database takes; 0: it does not say.
	recorded(ctx context.Context) (int64, error)
	// record says so.
	record(ctx context.Context, oldest int64) error
	// vacant fails with ErrOlder if a program that is older than this has the database open.
	vacant(ctx context.Context, oldest int64) error
}

// migrate brings the schema up to date, or finds that it is newer than this program and
// takes it all the same.
func migrate(ctx context.Context, db *sql.DB, cfg Config, d Dialect, g ground) error {
	l, err := readLevels(cfg.Migrations)
	if err != nil {
		return err
	}
	dialect := goose.DialectSQLite3
	if d == PostgreSQL {
		dialect = goose.DialectPostgres
	}
	p, err := goose.NewProvider(dialect, db, translated{cfg.Migrations, d}, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	for attempt := 0; ; attempt++ {
		err := step(ctx, p, g, l)
		if err == nil || errors.Is(err, ErrNewer) || errors.Is(err, ErrOlder) {
			return err
		}
		// Another process may do the same at the same time: then one of them fails, and
		// finds the work done when it looks again. Who cannot have a table goes out of
		// the way of those who have it, and comes back.
		most := maxMigrateAttempts
		if occupied(err) {
			most = cmp.Or(cfg.attempts, maxOccupiedAttempts)
		}
		if attempt >= most || ctx.Err() != nil {
			if occupied(err) {
				err = fmt.Errorf("%w: %w", ErrOccupied, err)
			}
			return fmt.Errorf("migrate: %w", err)
		}
		if err := pause(ctx, migratePause/2+rand.N(migratePause)); err != nil {
			return err
		}
	}
}

// occupied reports whether a migration did not get a table in time (PostgreSQL's
// lock_not_available), or was in the way of others (deadlock_detected).
func occupied(err error) bool {
	s := sqlState(err)
	return s == lockNotAvailable || s == deadlockDetected
}

const lockNotAvailable = "55P03"

const (
	maxMigrateAttempts = 3

	// maxOccupiedAttempts bounds how often a migration tries to get its tables: some two
	// minutes, which outlast every transaction of ours.
	maxOccupiedAttempts = 200

	// migratePause is the mean pause between two attempts, in which everybody else gets
	// the tables. It is longer than lockTimeout, so that at most half of the time is lost.
	migratePause = 600 * time.Millisecond

	// lockTimeout is how long a migration may wait for a table. Everybody who wants
	// that waits behind it.
	lockTimeout = 300 * time.Millisecond
)

// step is one attempt.
func step(ctx context.Context, p *goose.Provider, g ground, l levels) error {
	current, _, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	oldest, err := g.recorded(ctx)
	if err != nil {
		return err
	}
	if current > l.own {
		return l.admit(current, oldest)
	}
	needed := l.needed(l.own)
	if needed > oldest && oldest > 0 && current < l.own {
		if err := claimAlone(ctx, g, oldest, needed); err != nil {
			return err
		}
	} else if needed > oldest {
		if err := g.record(ctx, needed); err != nil {
			return err
		}
	}
	if current == l.own {
		return nil
	}
	_, err = p.Up(ctx)
	return err
}

// admit decides whether this program may use a schema that is newer than itself.
func (l levels) admit(current, oldest int64) error {
	if oldest > 0 && oldest <= l.own {
		return nil
	}
	return newer(current, oldest, l.own)
}

func newer(current, oldest, own int64) error {
	if oldest == 0 {
		oldest = current
	}
	return fmt.Errorf("%w (its schema is %d, for programs of schema %d and later; this one is of %d)", ErrNewer, current, oldest, own)
}

// claimAlone makes sure that nobody is at work who could not go on. Who connects reads
// the number after making itself known; so it is written before the second look.
func claimAlone(ctx context.Context, g ground, was, needed int64) error {
	if err := g.vacant(ctx, needed); err != nil {
		return err
	}
	if err := g.record(ctx, needed); err != nil {
		return err
	}
	err := g.vacant(ctx, needed)
	if err != nil {
		err = errors.Join(err, g.record(context.WithoutCancel(ctx), was))
	}
	return err
}

// additive are the statements after which a program goes on that does not know of them.
var additive = []*regexp.Regexp{
	regexp.MustCompile(`^CREATE TABLE `),
	regexp.MustCompile(`^CREATE (INDEX|SEQUENCE|VIEW) `),
	regexp.MustCompile(`^ALTER TABLE \w+ ADD COLUMN \w+ \w+( NOT NULL DEFAULT ('[^']*'|x'[0-9a-f]*'|\w+)| DEFAULT ('[^']*'|x'[0-9a-f]*'|\w+))?$`),
	regexp.MustCompile(`^INSERT INTO `),
}

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	create  = regexp.MustCompile(`^CREATE TABLE (\w+) `)
	insert  = regexp.MustCompile(`^INSERT INTO (\w+) `)
	gap     = regexp.MustCompile(`\s+`)
)

// Additive reports, as an error, what in a migration a program of the version before may
// not survive, though the migration says that it does. It knows a few forms that are
// safe and refuses the others: they belong into a migration without the line.
func Additive(text []byte, version int64) error {
	oldest, err := oldestOf(text, version)
	if err != nil || oldest == version {
		return err
	}
	made := make(map[string]bool) // tables
	text = comment.ReplaceAll(Translate(PostgreSQL, text), nil)
	for part := range bytes.SplitSeq(text, []byte(";")) {
		statement := string(bytes.TrimSpace(gap.ReplaceAll(part, []byte(" "))))
		if statement == "" {
			continue
		}
		safe := false
		for _, form := range additive {
			safe = safe || form.MatchString(statement)
		}
		if m := create.FindStringSubmatch(statement); m != nil {
			made[m[1]] = true
		}
		if m := insert.FindStringSubmatch(statement); m != nil && !made[m[1]] {
			safe = false // an older program may not know what it finds
		}
		if !safe {
			return fmt.Errorf("%q is not known to be survived by programs of schema %d: make it a migration of a later version, without the line \"-- oldest\"", statement, oldest)
		}
	}
	return nil
}
