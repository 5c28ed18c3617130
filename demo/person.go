// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"valise/internal/stage"
)

// A person is an official who writes, and keeps a copy of all that was written
// to them, for the checker to compare.
type person struct {
	*stage.Official

	sent     string // folder of what others sent to this person
	received string // folder of what arrived

	mu        sync.Mutex
	texts     int // guarded by mu: texts sent to this person
	files     int // guarded by mu
	receiving *stage.Process
}

func newPerson(o *stage.Official) *person {
	dir := filepath.Dir(o.Home)
	return &person{Official: o, sent: filepath.Join(dir, "sent", o.Name), received: filepath.Join(dir, "received", o.Name)}
}

// receive starts `valise receive --follow`.
func (p *person) receive(*stage.Stage) (err error) {
	p.receiving, err = p.Receive(p.received)
	return err
}

func (p *person) stopReceiving() error {
	p.receiving.Stop()
	return nil
}

// write sends a text and returns when the gateway has it on disk.
func (p *person) write(ctx context.Context, to *person, text string) error {
	if err := to.keepText(text); err != nil {
		return err
	}
	_, err := p.Run(ctx, "send", to.Address, text)
	return err
}

// keep is write for a time at which the gateway may refuse at first.
func (p *person) keep(ctx context.Context, to *person, text string) error {
	if err := to.keepText(text); err != nil {
		return err
	}
	_, err := stage.Poll(ctx, "the gateway to take a text again", func() (struct{}, bool, error) {
		_, err := p.Run(ctx, "send", to.Address, text)
		return struct{}{}, err == nil, nil
	})
	return err
}

func (p *person) keepText(text string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.texts++
	return writeNew(filepath.Join(p.sent, "text", fmt.Sprintf("%04d", p.texts)), []byte(text))
}

// sendFile makes a file of random bytes and sends it in the background.
func (p *person) sendFile(ctx context.Context, to *person, size int) (<-chan error, error) {
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		return nil, err
	}
	to.mu.Lock()
	to.files++
	path := filepath.Join(to.sent, "files", fmt.Sprintf("report-%d.bin", to.files))
	to.mu.Unlock()
	if err := writeNew(path, data); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx, "send", to.Address, "--file", path)
		done <- err
	}()
	return done, nil
}

func writeNew(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// An event is what the demo reads of a line of messages.jsonl.
type event struct {
	Text string
	File *struct{ Path string }
}

// arrived counts the texts and files that the receiver has written down.
func (p *person) arrived() (texts, files int, err error) {
	data, err := os.ReadFile(filepath.Join(p.received, "messages.jsonl"))
	if os.IsNotExist(err) {
		return 0, 0, nil
	}
	for line := range bytes.Lines(data) {
		var e event
		if !bytes.HasSuffix(line, []byte("\n")) {
			continue // being written
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, 0, err
		}
		if e.Text != "" {
			texts++
		}
		if e.File != nil && e.File.Path != "" {
			files++
		}
	}
	return texts, files, err
}

// settle waits until both have all that was sent to them.
func (d *demo) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for _, p := range []*person{d.alice, d.bob} {
		var texts, files int
		_, err := stage.Poll(ctx, p.Name+"'s messages", func() (struct{}, bool, error) {
			var err error
			texts, files, err = p.arrived()
			return struct{}{}, texts >= p.texts && files >= p.files, err
		})
		if err != nil {
			return fmt.Errorf("%w: %d of %d texts and %d of %d files are there", err, texts, p.texts, files, p.files)
		}
	}
	return nil
}
