// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// Cache lifetimes (C2SP tlog-tiles, Section "APIs"): a tile never changes, a
// checkpoint is asked for to learn what is new.
const (
	cacheTile       = "public, max-age=31536000, immutable"
	cacheCheckpoint = "no-cache"
)

// Handler serves a record (C2SP tlog-tiles): /checkpoint, /tile/<L>/<N>[.p/<W>]
// and /tile/entries/<N>[.p/<W>], as far as the newest checkpoint reaches. What
// it gives are salted hashes. Of a Finder it serves proofs as well, in JSON:
// /proof/<SHA-256 of a TBSCertificate in hex> is an Inclusion, /growth/<size> a
// Growth. Put it below a prefix with http.StripPrefix.
func Handler(s Source) http.Handler {
	mux := http.NewServeMux()
	h := server{s}
	mux.HandleFunc("GET /checkpoint", h.checkpoint)
	mux.HandleFunc("GET /tile/", h.tile)
	mux.HandleFunc("GET /growth/{from}", h.growth)
	if f, ok := s.(Finder); ok {
		mux.HandleFunc("GET /proof/{subject}", func(w http.ResponseWriter, r *http.Request) { h.proof(w, r, f) })
	}
	return mux
}

type server struct{ source Source }

func (h server) checkpoint(w http.ResponseWriter, r *http.Request) {
	text, err := h.source.Checkpoint(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	write(w, "text/plain; charset=utf-8", cacheCheckpoint, text)
}

func (h server) tile(w http.ResponseWriter, r *http.Request) {
	t, ok := parseTile(strings.TrimPrefix(r.URL.Path, "/"))
	if !ok {
		http.Error(w, "not the path of a tile", http.StatusNotFound)
		return
	}
	_, head, err := newest(r.Context(), h.source)
	if err != nil {
		unavailable(w, err)
		return
	}
	// Only what a checkpoint covers: what comes after it may still change when
	// the authority is restored from a backup.
	if t.W > width(head.N, t.L, t.N) {
		http.Error(w, "no such tile in a tree of "+strconv.FormatInt(head.N, 10)+" leaves", http.StatusNotFound)
		return
	}
	data, err := t.read(r.Context(), h.source)
	if err != nil {
		unavailable(w, err)
		return
	}
	write(w, "application/octet-stream", cacheTile, data)
}

func (h server) growth(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseInt(r.PathValue("from"), 10, 64)
	if err != nil || from < 0 || strconv.FormatInt(from, 10) != r.PathValue("from") {
		http.Error(w, "not a number of leaves", http.StatusBadRequest)
		return
	}
	growth, err := Grow(r.Context(), h.source, from)
	if err != nil {
		unavailable(w, err)
		return
	}
	writeJSON(w, growth)
}

func (h server) proof(w http.ResponseWriter, r *http.Request, f Finder) {
	var subject [32]byte
	text := r.PathValue("subject")
	if len(text) != hex.EncodedLen(len(subject)) || strings.ToLower(text) != text {
		http.Error(w, "not a SHA-256 in small hex digits", http.StatusBadRequest)
		return
	}
	if _, err := hex.Decode(subject[:], []byte(text)); err != nil {
		http.Error(w, "not a SHA-256 in small hex digits", http.StatusBadRequest)
		return
	}
	inclusion, err := Prove(r.Context(), f, subject, 0)
	if err != nil {
		unavailable(w, err)
		return
	}
	writeJSON(w, inclusion)
}

// unavailable says that something is not there, or is not there at present,
// and no more: what the store said stays inside.
func unavailable(w http.ResponseWriter, err error) {
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case errors.Is(err, ErrUnknown):
		http.Error(w, "nothing with this hash is recorded", http.StatusNotFound)
	case errors.Is(err, ErrAhead):
		http.Error(w, "the tree is smaller than that", http.StatusNotFound)
	case errors.Is(err, ErrYoung):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "recorded, and not covered by a checkpoint yet", http.StatusServiceUnavailable)
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "the record cannot be read at present", http.StatusServiceUnavailable)
	}
}

func write(w http.ResponseWriter, media, cache string, data []byte) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", cache)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(data)
}

func writeJSON(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		unavailable(w, err)
		return
	}
	write(w, "application/json", cacheCheckpoint, append(data, '\n'))
}
