// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// both runs one soak with each store, half of the time each, and has the judge add up
// what it finds.
func (o *options) both() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "vs")
	if err != nil {
		fmt.Println("soak: failed: a folder for the records:", err)
		return 1
	}
	var folders []string
	for _, store := range []string{journalStore, postgresStore} {
		folder := filepath.Join(dir, store)
		var out bytes.Buffer
		status := outside(&out, "-bin", o.bin, "-for", (o.length / 2).String(), "-seed", fmt.Sprint(o.seed),
			"-store", store, "-nodes", nodesOf(store, o.nodes), "-disk", o.disk, fmt.Sprintf("-keep=%t", o.keep), "-records", folder)
		line := strings.TrimSpace(out.String())
		// A run that the judge has not seen to its end says nothing about anybody's messages.
		if _, err := os.Stat(filepath.Join(folder, "plan.json")); err != nil || ctx.Err() != nil || line == "" ||
			strings.Contains(line, "the run broke off") {
			if line == "" {
				line = fmt.Sprintf("soak: failed: no verdict, status %d", status)
			}
			fmt.Fprintf(os.Stderr, "soak: records are in %s\n", dir)
			fmt.Printf("%s (store %s)\n", line, store)
			return 1
		}
		fmt.Fprintf(os.Stderr, "soak: store %s: %s\n", store, strings.TrimPrefix(line, "soak: "))
		folders = append(folders, folder)
	}
	limit, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(limit, filepath.Join(o.bin, "check-soak"), folders...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil && !o.keep:
		return o.forget(dir)
	case err == nil:
	case !errors.As(err, &exit):
		fmt.Println("soak: failed: the judge:", err)
	}
	fmt.Fprintf(os.Stderr, "soak: records are in %s\n", dir)
	if err != nil {
		return 1
	}
	return 0
}

// nodesOf says how many nodes a run has: those of a gateway's own store have none to share.
func nodesOf(store string, nodes int) string {
	if store == journalStore {
		nodes = 1
	}
	return fmt.Sprint(nodes)
}

func (*options) forget(dir string) int {
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	}
	return 0
}
