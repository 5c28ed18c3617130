// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"valise/internal/stage"
)

// An auditStream reads what a server recorded from a moment on.
type auditStream struct {
	path string
	from int64
}

// watchAudit remembers where the stream ends now.
func watchAudit(path string) (*auditStream, error) {
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		return &auditStream{path: path}, nil
	}
	if err != nil {
		return nil, err
	}
	return &auditStream{path, info.Size()}, nil
}

// reasons lists the reason codes recorded since then.
func (a *auditStream) reasons() ([]string, error) {
	data, err := os.ReadFile(a.path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	lines := bufio.NewScanner(bytes.NewReader(data[min(a.from, int64(len(data))):]))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct{ Reason string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("%s: %w", a.path, err)
		}
		if event.Reason != "" {
			out = append(out, event.Reason)
		}
	}
	return out, lines.Err()
}

// await waits until reason has been recorded.
func (a *auditStream) await(ctx context.Context, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var seen []string
	_, err := stage.Poll(ctx, fmt.Sprintf("reason %q in the audit stream", reason), func() (struct{}, bool, error) {
		var err error
		seen, err = a.reasons()
		for _, r := range seen {
			if r == reason {
				return struct{}{}, true, nil
			}
		}
		return struct{}{}, false, err
	})
	if err != nil {
		return fmt.Errorf("%w; it has %q", err, seen)
	}
	return nil
}
