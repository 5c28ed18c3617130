// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"valise/bulletin"
	"valise/manifest"
	"valise/statement"
)

// A Document is one that can come by hand. Names sort as they are taken in: a
// manifest before what its keys signed.
type Document string

// The documents.
const (
	DocumentManifest  Document = "1-manifest"
	DocumentBulletin  Document = "2-bulletin"
	DocumentStatement Document = "3-statement"
)

// suffixes of the files in a spool.
const (
	ready   = ".jws"
	refused = ".refused" // holds the reason
)

// MaxDocument bounds a file in the spool; package bulletin's bound is the
// largest.
const MaxDocument = bulletin.MaxSize

// Put lays a document into a spool, whole or not at all, and returns the path of
// its file. The gateway removes the file once it has taken the document in; if
// it refuses it, a file of that name with ".refused" at its end says why.
func Put(spool string, d Document, raw []byte) (string, error) {
	if len(raw) == 0 || len(raw) > MaxDocument {
		return "", fmt.Errorf("feed: a document of %d bytes", len(raw))
	}
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(spool, fmt.Sprintf("%s-%x%s", d, sha256.Sum256(raw), ready))
	f, err := os.CreateTemp(spool, ".incoming-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	_ = os.Remove(path + refused)
	return path, os.Rename(f.Name(), path)
}

// Outcome tells what became of a document that was Put: taken and nil, refused
// with the reason as an error, or neither: it still waits.
func Outcome(path string) (done bool, err error) {
	// In this order: a document that is refused goes when its reason is there.
	_, gone := os.Stat(path)
	reason, err := os.ReadFile(path + refused)
	switch {
	case err == nil:
		return true, fmt.Errorf("%w: %s", ErrRefused, strings.TrimSpace(string(reason)))
	case errors.Is(gone, fs.ErrNotExist):
		return true, nil
	}
	return false, gone
}

// watch takes in what is laid into the spool.
func (f *Feed) watch(ctx context.Context) error {
	if err := os.MkdirAll(f.cfg.Spool, 0o700); err != nil {
		return err
	}
	tick := time.NewTicker(spoolEvery)
	defer tick.Stop()
	waiting := make(map[string]bool)
	for {
		if err := f.sweep(ctx, waiting); err != nil && ctx.Err() == nil {
			f.cfg.Log.Error("the spool cannot be read", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweep takes in what lies there now. What fails for reasons of our own stays, and
// is told of once.
func (f *Feed) sweep(ctx context.Context, waiting map[string]bool) error {
	files, err := os.ReadDir(f.cfg.Spool) // sorted by name
	if err != nil {
		return err
	}
	for _, file := range files {
		if !file.Type().IsRegular() || !strings.HasSuffix(file.Name(), ready) {
			continue
		}
		path := filepath.Join(f.cfg.Spool, file.Name())
		err := f.takeFile(ctx, path)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && (errors.Is(err, bulletin.ErrFull) || !errors.Is(err, ErrRefused) && !errors.Is(err, ErrFork)) {
			if !waiting[path] {
				f.cfg.Log.Error("a document in the spool waits", "file", file.Name(), "error", err.Error())
			}
			waiting[path] = true
			continue
		}
		delete(waiting, path)
		if err != nil {
			f.cfg.Log.Error("a document in the spool was refused", "file", file.Name(), "error", err.Error())
			f.event(ctx, "document refused", "not_verified")
			if err := os.WriteFile(path+refused, []byte(err.Error()+"\n"), 0o600); err != nil {
				return err
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

func (f *Feed) takeFile(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if strings.HasPrefix(filepath.Base(path), string(DocumentRecord)) {
		return f.takeRecord(ctx, file)
	}
	raw, err := io.ReadAll(io.LimitReader(file, MaxDocument+1))
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	switch {
	case len(raw) > MaxDocument:
		return refuse("file", errors.New("it is too large"))
	case strings.HasPrefix(name, string(DocumentManifest)):
		return f.takeManifest(ctx, raw)
	case strings.HasPrefix(name, string(DocumentBulletin)):
		return f.takeBulletin(ctx, raw)
	case strings.HasPrefix(name, string(DocumentStatement)):
		return f.takeStatement(ctx, raw)
	}
	return refuse("file", errors.New("its name does not say what it is"))
}

// CheckDocument verifies a document from a file as far as the pinned root goes,
// before it is Put. A bulletin is verified only by the gateway, which has the
// manifest; here it must be one.
func CheckDocument(d Document, raw []byte, cfg Config) error {
	switch d {
	case DocumentManifest:
		m, err := manifest.ParseManifest(raw, cfg.Root)
		if err == nil && m.Domain != cfg.Domain {
			err = fmt.Errorf("it is for %s", m.Domain)
		}
		return err
	case DocumentBulletin:
		_, err := bulletin.NumberOf(raw)
		return err
	}
	st, err := statement.Verify(raw, trustOf(cfg), sha256.Sum256(cfg.Root.Raw), time.Now())
	if err == nil && !bulletin.Concerns(st.Body) {
		err = fmt.Errorf("a %s is nothing that a gateway acts on", st.Body.Kind())
	}
	return err
}
