// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// usage is what the machine's processors have done since it was started (proc(5)).
type usage struct{ busy, idle time.Duration }

const clockTicks = 100 // USER_HZ

func readUsage() (usage, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, err
	}
	return parseUsage(string(text))
}

// parseUsage reads the first line: user, nice, system, idle, iowait, irq, softirq, steal.
func parseUsage(text string) (u usage, err error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return u, errors.New("/proc/stat does not begin with the sum of all processors")
	}
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, fmt.Errorf("/proc/stat: %w", err)
		}
		took := time.Duration(n) * time.Second / clockTicks
		if i == 3 || i == 4 {
			u.idle += took
		} else {
			u.busy += took
		}
	}
	return u, nil
}

// waits say what the connections of gateways to the database did when they were in a
// transaction: shares of all looks at them.
type waits struct {
	looks   int
	running float64 // the server worked, or waited for a processor
	disk    float64 // for the disk: the log's sync, above all
	locks   float64 // for another transaction
	gateway float64 // the server waited for the gateway's next statement
}

func (w waits) String() string {
	return fmt.Sprintf("in transactions: %.0f%% at work, %.0f%% disk, %.0f%% locks, %.0f%% the gateway's turn",
		100*w.running, 100*w.disk, 100*w.locks, 100*w.gateway)
}

// pause is between two looks at the database.
const pause = 5 * time.Millisecond

// watch looks at the server's connections for a while.
func watch(ctx context.Context, dsn string, length time.Duration) (w waits, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return w, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	counts := make(map[string]int)
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(pause) {
		if err := lookOnce(ctx, conn, counts); err != nil {
			return w, err
		}
	}
	for _, n := range counts {
		w.looks += n
	}
	if w.looks == 0 {
		return w, nil
	}
	all := float64(w.looks)
	w.disk, w.locks, w.gateway = float64(counts["IO"])/all, float64(counts["Lock"]+counts["LWLock"])/all, float64(counts["Client"])/all
	w.running = 1 - w.disk - w.locks - w.gateway
	return w, nil
}

// lookOnce adds what each connection in a transaction does. One that waits for another's
// sync of the log (WALWrite, an LWLock) waits for the disk.
func lookOnce(ctx context.Context, conn *pgx.Conn, counts map[string]int) error {
	rows, err := conn.Query(ctx, `SELECT CASE WHEN wait_event IN ('WALWrite', 'WALInsert') THEN 'IO' ELSE coalesce(wait_event_type, '') END
		FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var kind string
		if err := rows.Scan(&kind); err != nil {
			return err
		}
		counts[kind]++
	}
	return rows.Err()
}
