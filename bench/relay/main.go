// SPDX-License-Identifier: Apache-2.0

// Command relay measures what the gateway relays, beside brokers and bare relays in
// the same run:
//
//	go run ./bench/relay                    # five rounds, some twenty minutes
//	go run ./bench/relay -quick             # one round of everything
//	go run ./bench/relay -only valise,nats  # some servers
//
// Three workloads, each on servers that were started for it:
//
//   - online: P pairs of a sender and its receiver, K messages of each under way. A
//     message is under way until its acknowledgement and the message itself have
//     arrived. Counted is what is done within the time of a cell.
//   - offline: 50,000 messages from 16 senders for 1,000 receivers that are away,
//     then all of them come and ask at once.
//   - idle: connections that are authenticated on both sides and wait for mail.
//
// The clients are two processes, the same for every server, each with half of the
// pairs, and lean: they check order and completeness and keep nothing. All servers
// carry the same messages: MLS PrivateMessages whose padded content has 1,024 bytes,
// some 1,400 with framing, header and label. Brokers are spoken to in clear over TCP, which favours them; the
// gateway and the bare relays with certificates on both sides and a hybrid key
// exchange. The gateway is the daemon as it is shipped, with its key in a token and
// all of its checks: a bulletin, and a policy bundle under which every message is labelled;
// only the bounds on what a device may send are raised.
//
// Rounds rotate the order of the servers; medians count, and ratios are of the same
// round. A server that does less than three quarters of what it has done on this kind
// of machine (facts in report.go) is a bent yardstick: the program says "baseline
// invalid" and compares nothing with it. relay.md says what limits each cell.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"valise/bench/lean"
	"valise/internal/stage"
)

// limit ends the program whatever happens.
const limit = 60 * time.Minute

func main() {
	if len(os.Args) == 3 && (os.Args[1] == "load" || os.Args[1] == "bare") {
		var err error
		if os.Args[1] == "load" {
			err = loadMain(os.Args[2])
		} else {
			err = bareMain(context.Background(), os.Args[2])
		}
		exit(err)
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.DurationVar(&o.length, "length", 3*time.Second, "of one cell")
	quick := flag.Bool("quick", false, "one round, cells of 2 s")
	only := flag.String("only", "", "measure these `servers` only, separated by commas")
	parts := flag.String("parts", "online,offline,idle", "`workloads`, separated by commas")
	cellList := flag.String("cells", "", "`cells` of the online workload, such as p16k16, separated by commas")
	flag.BoolVar(&o.plain, "plain", false, "no policy and no labels, to see what they cost")
	flag.BoolVar(&o.keep, "keep", false, "leave the servers' files and logs")
	flag.Parse()
	if *quick {
		o.rounds, o.length = 1, 2*time.Second
	}
	o.only, o.parts, o.cells = words(*only), words(*parts), words(*cellList)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func words(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

type options struct {
	rounds             int
	length             time.Duration
	only, parts, cells []string
	plain, keep        bool
}

func (o *options) part(name string) bool { return slices.Contains(o.parts, name) }

// A bench holds what all servers share.
type bench struct {
	options
	dir, bin  string
	self      string // this program
	authority *lean.Authority
	stage     *stage.Stage
	token     *stage.Token
}

func run(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Println("files are in", b.dir)
	} else {
		defer os.RemoveAll(b.dir)
	}
	targets, err := b.targets(ctx)
	if err != nil {
		return err
	}
	all := make(table)
	for round := range o.rounds {
		for i := range targets {
			t := targets[(round+i)%len(targets)]
			dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", t.name, round))
			if err := os.Mkdir(dir, 0o711); err != nil {
				return err
			}
			if err := b.measure(ctx, t, dir, round, all); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if !o.keep {
				if err := os.RemoveAll(dir); err != nil {
					return err
				}
			}
		}
	}
	return report(targets, all)
}

func newBench(ctx context.Context, o options) (*bench, error) {
	// /tmp may be in memory, which does not sync.
	dir, err := os.MkdirTemp("/var/tmp", "vr")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(dir, 0o711), onDisk(dir)); err != nil { // PostgreSQL runs as somebody else
		return nil, err
	}
	b := &bench{options: o, dir: dir, bin: filepath.Join(dir, "bin")}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if err := build(ctx, b.bin+"/", "valise/cmd/valise-gatewayd"); err != nil {
		return nil, err
	}
	if b.authority, err = lean.NewAuthority(domain); err != nil {
		return nil, err
	}
	if !o.plain {
		if err := b.authority.Enact(); err != nil {
			return nil, err
		}
	}
	if err := b.authority.Save(dir); err != nil {
		return nil, err
	}
	if b.stage, err = stage.New(stage.Config{Bin: b.bin, Dir: dir}); err != nil {
		return nil, err
	}
	b.token, err = b.stage.NewToken(ctx, "bench")
	return b, err
}

func build(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "go", append([]string{"build", "-o"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// onDisk refuses a folder in memory: a sync there costs nothing.
func onDisk(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is in memory, where nothing is durable: mount a disk there", dir)
	}
	return nil
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs
	}
	return string(text)
}
