// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// A found record is a copy that is ahead of its checkpoint and can be searched.
type found struct {
	*Copy
	list []Item
	err  error
}

func (f found) Find(_ context.Context, subject [32]byte) (int64, *Entry, error) {
	for _, i := range f.list {
		if i.Entry.Subject == subject {
			return i.Index, i.Entry, nil
		}
	}
	return 0, nil, ErrUnknown
}

func (f found) Hashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.Copy.Hashes(ctx, indexes)
}

func source(t testing.TB, n int64) found {
	t.Helper()
	dir, list, _, _ := writeCopy(t, n)
	c, err := OpenCopy(dir)
	if err != nil {
		t.Fatal(err)
	}
	young := items(t, n+1)[n]
	young.Entry.Subject = [32]byte{7}
	return found{c, append(list, young), nil}
}

func get(t *testing.T, h http.Handler, path string) (*http.Response, []byte) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), body
}

// C2SP tlog-tiles, Section "APIs": paths, media types, cache lifetimes, sizes.
func TestHandler(t *testing.T) {
	src := source(t, 300)
	h := Handler(src)
	for path, want := range map[string]struct {
		size         int
		media, cache string
	}{
		"/tile/0/000":            {256 * 32, "application/octet-stream", cacheTile},
		"/tile/0/000.p/17":       {17 * 32, "application/octet-stream", cacheTile},
		"/tile/0/001.p/44":       {44 * 32, "application/octet-stream", cacheTile},
		"/tile/0/001.p/1":        {32, "application/octet-stream", cacheTile},
		"/tile/1/000.p/1":        {32, "application/octet-stream", cacheTile},
		"/tile/entries/000":      {256 * 35, "application/octet-stream", cacheTile},
		"/tile/entries/001.p/44": {44 * 35, "application/octet-stream", cacheTile},
		"/checkpoint":            {len(src.checkpoint), "text/plain; charset=utf-8", cacheCheckpoint},
	} {
		r, body := get(t, h, path)
		if r.StatusCode != 200 || len(body) != want.size || r.Header.Get("Content-Type") != want.media || r.Header.Get("Cache-Control") != want.cache {
			t.Errorf("%s: %s, %d bytes, %v", path, r.Status, len(body), r.Header)
		}
	}
	for _, path := range []string{
		"/tile/0/001", "/tile/0/001.p/45", "/tile/0/002.p/1", "/tile/1/000", "/tile/1/000.p/2", "/tile/2/000.p/1", "/tile/63/000.p/1",
		"/tile/64/000.p/1", "/tile/00/000", "/tile/-1/000", "/tile/0/0", "/tile/0/0000", "/tile/0/x000/000", "/tile/0/x001", "/tile/0/000.p/0",
		"/tile/0/000.p/256", "/tile/0/000.p/01", "/tile/0/000.p", "/tile/0/", "/tile/data/000", "/tile/8/0/000", "/tile/entries/001",
		"/tile/entries/001.p/45", "/tile/0/" + strings.Repeat("x999/", 30) + "999", "/tile/0/+00", "/entries", "/payloads", "/",
	} {
		if r, body := get(t, h, path); r.StatusCode != 404 || r.Header.Get("Cache-Control") == cacheTile {
			t.Errorf("%s: %s %q", path, r.Status, body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/checkpoint", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestTilePaths(t *testing.T) {
	for path, want := range map[string]tile{
		"tile/0/000":                    {0, 0, 256},
		"tile/3/x001/x234/067":          {3, 1234067, 256},
		"tile/3/x001/x234/067.p/8":      {3, 1234067, 8},
		"tile/entries/x001/000.p/255":   {entriesLevel, 1000, 255},
		"tile/63/x999/999":              {63, 999999, 256},
		"tile/0/x001/x000/x000/000.p/1": {0, 1e9, 1},
	} {
		if got, ok := parseTile(path); !ok || got != want || want.path() != path {
			t.Errorf("%s: %+v %v, want %+v = %s", path, got, ok, want, want.path())
		}
	}
}

func FuzzParseTile(f *testing.F) {
	f.Add("tile/entries/x001/000.p/255")
	f.Add("tile/0/999")
	f.Fuzz(func(t *testing.T, path string) {
		got, ok := parseTile(path)
		if ok && (got.path() != path || got.N < 0 || got.W < 1 || got.W > tileWidth) {
			t.Errorf("%q reads as %+v, %s", path, got, got.path())
		}
		if w := width(MaxSize, got.L, got.N); w < 0 || w > tileWidth {
			t.Errorf("%q has a width of %d", path, w)
		}
	})
}

// Proofs over HTTP: they check out, for what was asked and for nothing else.
func TestProofsServed(t *testing.T) {
	src := source(t, 300)
	h := Handler(src)
	_, v := ledgerKey(t) // another log's
	verifier := v
	subject := src.list[123].Entry.Subject
	r, body := get(t, h, "/proof/"+hex.EncodeToString(subject[:]))
	var i Inclusion
	if err := json.Unmarshal(body, &i); err != nil || r.StatusCode != 200 {
		t.Fatalf("%s %s: %v", r.Status, body, err)
	}
	if i.Index != 123 || i.Checkpoint != string(src.checkpoint) || *i.Entry != *src.list[123].Entry {
		t.Errorf("got %+v", i)
	}
	if err := i.CheckIn(src.Claimed(), subject); err != nil {
		t.Error(err)
	}
	if _, err := i.Check(subject, verifier); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("under another key: %v", err)
	}
	r, body = get(t, h, "/growth/17")
	var g Growth
	if err := json.Unmarshal(body, &g); err != nil || r.StatusCode != 200 {
		t.Fatalf("%s %s: %v", r.Status, body, err)
	}
	if err := CheckGrowth(headOf(t, src.list[:17]), src.Claimed(), g.Proof); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]int{
		"/proof/" + strings.Repeat("00", 32):                        404,
		"/proof/07" + strings.Repeat("00", 31):                      503, // recorded, and not covered
		"/proof/" + strings.ToUpper(hex.EncodeToString(subject[:])): 400,
		"/proof/" + hex.EncodeToString(subject[:31]):                400,
		"/proof/" + strings.Repeat("zz", 32):                        400,
		"/growth/301":                                               404, "/growth/-1": 400, "/growth/007": 400, "/growth/x": 400, "/growth/9999999999999999999999": 400,
	} {
		if r, body := get(t, h, path); r.StatusCode != want {
			t.Errorf("%s: %s %q, want %d", path, r.Status, body, want)
		}
	}
	if r, _ := get(t, Handler(src.Copy), "/proof/"+hex.EncodeToString(subject[:])); r.StatusCode != 404 {
		t.Errorf("a source that cannot be searched answers %s", r.Status)
	}
}

// What the store says when it fails stays inside.
func TestHandlerKeepsErrors(t *testing.T) {
	src := source(t, 300)
	src.err = errors.New("password of the database is sesame")
	for _, path := range []string{"/tile/0/000", "/growth/7", "/proof/" + hex.EncodeToString(src.list[0].Entry.Subject[:])} {
		r, body := get(t, Handler(src), path)
		if r.StatusCode != 503 || strings.Contains(string(body), "sesame") || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s %q %v", path, r.Status, body, r.Header)
		}
	}
}
