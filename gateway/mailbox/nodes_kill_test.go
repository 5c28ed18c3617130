// SPDX-License-Identifier: Apache-2.0

package mailbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// nodeOf has the test's program be a gateway's box of its own, for a test that kills it: the
// database that it is on.
const nodeOf = "VALISE_TEST_NODE_OF"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(nodeOf); dsn != "" {
		if err := pour(dsn); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// pour submits message after message of device 0, many at a time, and writes down which have
// been acknowledged, until it is killed.
func pour(dsn string) error {
	ctx := context.Background()
	n, err := relay.OpenNode(ctx, relay.SharedConfig{Database: dsn, Node: "killed"})
	if err != nil {
		return err
	}
	st, err := n.Arrive(ctx, mailbox.Arrival{Device: device(0), Address: "a@x.example", Chain: [][]byte{{1}}, Incarnation: incarnation, Time: time.Now()})
	if err != nil {
		return err
	}
	box := mailbox.New(mailbox.Config{Store: n})
	go func() { _ = box.Run(ctx) }()
	window := make(chan struct{}, 16)
	for counter := st.Counter + 1; ; counter++ {
		window <- struct{}{}
		err := box.Submit(ctx, poured(counter), func(o mailbox.Outcome, err error) {
			if err == nil && o.OK() {
				fmt.Println(counter)
			}
			<-window
		})
		if err != nil {
			return err
		}
	}
}

func poured(counter uint64) *mailbox.Submission {
	send := message(0, counter, strconv.FormatUint(counter, 10), 1)
	send.Messages[0].To = append(send.Messages[0].To, device(2))
	return send
}

// A gateway's process is killed in the middle of its work, again and again, and its device
// goes to another one and repeats what it was not told: its messages are there once each and in
// their order, those that were acknowledged and those of which only the database knew, and the
// recipients elsewhere have been woken for all of them.
func TestNodeIsKilled(t *testing.T) {
	dsn := testenv.Postgres(t).DSN
	sites := openSitesOn(t, dsn, 3, 1)
	box := hearing(t, mailbox.Config{Store: sites[0], SlowLook: 20 * time.Millisecond})
	sub, after, next := subscribe(t, box, 1), uint64(0), uint64(2)
	for range 3 {
		last := pourAndKill(t, dsn)
		st, err := sites[0].Arrive(t.Context(), mailbox.Arrival{Device: device(0), Address: "a@x.example", Chain: [][]byte{{1}}, Incarnation: incarnation, Time: time.Now()})
		if err != nil || st.Counter < last {
			t.Fatalf("%d was acknowledged, and the store has %d; %v", last, st.Counter, err)
		}
		// The former process's last transaction is over: the arrival has waited for it.
		await(t, sub, after, st.Counter-1) // the first of all counters founded the group
		submit(t, box, poured(st.Counter), mailbox.Repeated)
		submit(t, box, poured(st.Counter+1), mailbox.Done)
		entries, err := sites[0].Read(t.Context(), device(2), after, 1_000_000, 1<<30)
		if err != nil || uint64(len(entries)) != st.Counter-after {
			t.Fatalf("%d entries after %d, and the counter is %d; %v", len(entries), after, st.Counter+1, err)
		}
		for _, e := range entries {
			if string(e.Payload) != strconv.FormatUint(next, 10) {
				t.Fatalf("number %d is %q, want %d", e.Number, e.Payload, next)
			}
			next, after = next+1, e.Number
		}
		await(t, sub, after-1, after)
	}
}

// pourAndKill starts a process that pours, kills it soon, and returns the last counter that
// it has seen acknowledged.
func pourAndKill(t *testing.T, dsn string) (last uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), nodeOf+"="+dsn), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for seen := 0; lines.Scan(); seen++ {
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if seen == 100 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("it was not killed: %v", err)
	}
	return last
}
