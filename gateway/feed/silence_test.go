// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"valise/bulletin/stream"
	"valise/internal/testenv/paper"
)

// A line carries a byte at a time, with a pause before each.
type line struct {
	data  []byte
	pause time.Duration
	ctx   context.Context
}

// RoundTrip answers with the line.
func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	l.ctx = r.Context()
	go func() { _, _ = io.Copy(io.Discard, r.Body) }()
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(l)}, nil
}

func (l *line) Read(p []byte) (int, error) {
	select {
	case <-time.After(l.pause):
	case <-l.ctx.Done():
		return 0, l.ctx.Err()
	}
	n := copy(p[:1], l.data)
	if l.data = l.data[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// A document that takes longer than the silence which ends a stream arrives, as long
// as something of it does.
func TestSlowLine(t *testing.T) {
	authority := paper.New(t, "interieur.example")
	raw, _ := authority.First()
	for name, test := range map[string]struct {
		pause time.Duration
		slow  bool
	}{
		"slow": {silence / 100, true}, "silent": {silence + time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, err := Open(t.Context(), Config{
					Path: filepath.Join(t.TempDir(), "record.db"), Root: authority.Root, Domain: authority.Domain, URL: "https://127.0.0.1",
					Certificate: func() *tls.Certificate { return nil },
				})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				var events bytes.Buffer
				if err := stream.Write(&events, stream.Event{Kind: stream.KindManifest, Body: raw}); err != nil {
					t.Fatal(err)
				}
				client := &http.Client{Transport: &line{data: events.Bytes(), pause: test.pause}}
				told, err := f.connect(t.Context(), client)
				if told != test.slow || strings.Contains(err.Error(), "silent") == test.slow {
					t.Errorf("told: %t, want %t: %v", told, test.slow, err)
				}
			})
		})
	}
}
