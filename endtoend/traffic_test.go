// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"valise/internal/stage"
)

// seed is VALISE_SEED, or drawn; it is printed, so that a run can be repeated as
// far as two cores repeat anything.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := rand.Uint64N(1 << 32)
	if text := os.Getenv("VALISE_SEED"); text != "" {
		var err error
		if s, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("VALISE_SEED: %v", err)
		}
	}
	t.Logf("VALISE_SEED=%d", s)
	return s
}

// A letter is a message of one person to another.
type letter struct {
	id     string // given to send, so that a command that broke off can be repeated
	text   string
	file   string // path of what is sent instead of a text
	sum    string // its SHA-256
	report bool   // a send has reported success
}

// A correspondence is what one person writes to another, until it is stopped.
type correspondence struct {
	from, to *person
	rng      *rand.Rand
	texts    bool // no files
	// kill, if set, says whether the next send is to be killed on its way, and
	// counts one that was.
	kill     func(rng *rand.Rand) (after time.Duration, ok bool)
	onKilled func()

	reported atomic.Int64 // sends that succeeded so far
	letters  []*letter    // owned by run until it has returned
}

// run writes until stop is closed. Each letter but those whose sender was killed
// is repeated, under the same id, until it is reported sent.
func (c *correspondence) run(ctx context.Context, stop <-chan struct{}) error {
	for n := 1; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		l, err := c.compose(n)
		if err != nil {
			return err
		}
		if err := c.send(ctx, l); err != nil {
			return err
		}
	}
}

func (c *correspondence) compose(n int) (*letter, error) {
	l := &letter{id: fmt.Sprintf("%016x%016x", c.rng.Uint64(), c.rng.Uint64())}
	name := fmt.Sprintf("%s-%d", c.from.Name, n)
	if n%8 != 0 || c.texts {
		l.text = fmt.Sprintf("%s to %s, number %d, %x", c.from.Name, c.to.Name, n, c.rng.Uint64())
	} else {
		data := make([]byte, 1+c.rng.IntN(200<<10))
		for i := range data {
			data[i] = byte(c.rng.Uint32())
		}
		l.file = filepath.Join(c.from.w.Dir, "drafts", name+".bin")
		sum := sha256.Sum256(data)
		l.sum = hex.EncodeToString(sum[:])
		if err := errors.Join(os.MkdirAll(filepath.Dir(l.file), 0o700), os.WriteFile(l.file, data, 0o600)); err != nil {
			return nil, err
		}
	}
	c.letters = append(c.letters, l)
	return l, nil
}

func (c *correspondence) send(ctx context.Context, l *letter) error {
	var last error
	for {
		killed, err := c.attempt(ctx, l)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %s did not leave: %w; before that: %w", c.from.Name, l.id, ctx.Err(), cmp.Or(last, err))
		case err == nil:
			l.report = true
			c.reported.Add(1)
			return nil
		case killed && c.rng.IntN(2) == 0:
			return nil // given up: it arrives once, or not at all
		}
		last = err
		// The agent is locked or gone; whoever killed it unlocks it again.
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// attempt is one `valise send`, killed with -9 on its way if it is its turn.
func (c *correspondence) attempt(ctx context.Context, l *letter) (killed bool, err error) {
	args := []string{"send", "--id", l.id, c.to.Address}
	if l.file != "" {
		args = append(args, "--file", l.file)
	} else {
		args = append(args, l.text)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.kill != nil {
		if after, ok := c.kill(c.rng); ok {
			defer time.AfterFunc(after, cancel).Stop()
		}
	}
	_, err = c.from.Run(ctx, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, ok := exit.Sys().(syscall.WaitStatus)
		killed = ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	}
	if killed && c.onKilled != nil {
		c.onKilled()
	}
	return killed, err
}

// correspond runs correspondences while work lasts, ends each with a last letter,
// waits until those have arrived, and lets the judge compare.
func (w *world) correspond(list []*correspondence, work func(ctx context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	stop := make(chan struct{})
	errs := make(chan error, len(list))
	for _, c := range list {
		go func() { errs <- c.run(ctx, stop) }()
	}
	err := work(ctx)
	close(stop)
	if err != nil {
		cancel()
	}
	for range list {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range list {
		w.last(c)
	}
	w.judge(list)
}

// last sends a text behind everything that may still wait, and returns when it has
// been read: then what was sent before it has been, too, or never will be.
func (w *world) last(c *correspondence) {
	w.t.Helper()
	l := &letter{text: fmt.Sprintf("%s has nothing to add, %x", c.from.Name, c.rng.Uint64())}
	l.id = fmt.Sprintf("%016x%016x", c.rng.Uint64(), c.rng.Uint64())
	c.letters = append(c.letters, l)
	c.kill = nil
	if err := c.send(w.ctx, l); err != nil {
		w.t.Fatal(err)
	}
	c.to.has(l.text)
}

// judge writes down what must have arrived and lets demo/check compare. A letter
// whose send never reported success counts as sent if it arrived.
func (w *world) judge(list []*correspondence) {
	w.t.Helper()
	sent := filepath.Join(w.Dir, "sent")
	letters, uncertain, arrived := 0, 0, 0
	for _, c := range append(w.opening, list...) {
		texts, files := w.read(c.to)
		for i, l := range c.letters {
			letters++
			if !l.report {
				uncertain++
				if !texts[l.text] && !files[l.sum] {
					continue
				}
				arrived++
			}
			dir, data := "text", []byte(l.text)
			if l.file != "" {
				var err error
				dir = "files"
				if data, err = os.ReadFile(l.file); err != nil {
					w.t.Fatal(err)
				}
			}
			path := filepath.Join(sent, c.to.Name, dir, fmt.Sprintf("%s-%05d-%s", c.from.Name, i, l.id))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	out, err := stage.Output(w.ctx, nil, filepath.Join(w.Bin, "check"), sent, filepath.Join(w.Dir, "received"))
	w.t.Logf("%d letters, %d of them unreported (%d arrived); %s", letters, uncertain, arrived, out)
	if err != nil {
		w.t.Errorf("the judge: %v\n%s", err, out)
	}
	w.noRefusals()
}

// read lists what a person has, and fails where an event tells of a message that
// could not be read, or of a state that went back.
func (w *world) read(p *person) (texts, files map[string]bool) {
	w.t.Helper()
	list, err := p.events()
	if err != nil {
		w.t.Fatal(err)
	}
	texts, files = map[string]bool{}, map[string]bool{}
	for _, e := range list {
		switch e.Kind {
		case "message":
			texts[e.Text] = true
		case "file":
			files[e.File.SHA256] = true
		case "refused", "lost", "left", "other":
			w.t.Errorf("%s: %s: %s %s", p.Name, e.Kind, e.Reason, e.Text)
		}
	}
	return texts, files
}

// noRefusals fails if a device rejected what the gateway delivered.
func (w *world) noRefusals() {
	w.t.Helper()
	for _, l := range audit(w.t, w.gateway.Audit) {
		if l["event"] == "delivery_rejected" || l["reason"] == "message_altered" || l["reason"] == "state_conflict" {
			w.t.Errorf("audit: %v", l)
		}
	}
}

// together runs jobs at once; the first error ends all.
func together(ctx context.Context, jobs ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs error // guarded by mu
	)
	for _, job := range jobs {
		wg.Go(func() {
			if err := job(ctx); err != nil {
				cancel()
				mu.Lock()
				errs = errors.Join(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errs
}
