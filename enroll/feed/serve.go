// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"valise/bulletin/stream"
	"valise/identity"
	"valise/record"
)

// The public paths.
const (
	PathManifest = "/manifest" // the newest manifest, JWS
	PathBulletin = "/bulletin" // the newest bulletin, JWS
)

// Handler serves gateways, and everybody who asks for manifest or bulletin.
func (f *Feed) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+stream.PathStream, f.serveStream)
	mux.HandleFunc("POST "+stream.PathRestore, f.serveRestore)
	mux.HandleFunc("GET "+PathManifest, func(w http.ResponseWriter, _ *http.Request) {
		_, raw := f.manifest()
		document(w, raw)
	})
	mux.HandleFunc("GET "+PathBulletin, func(w http.ResponseWriter, _ *http.Request) {
		if newest := f.latest(); newest != nil {
			document(w, newest.raw)
			return
		}
		document(w, nil)
	})
	return mux
}

// document answers with a JWS (RFC 7515, Section 9.2.1).
func document(w http.ResponseWriter, raw []byte) {
	if len(raw) == 0 {
		http.Error(w, "there is none yet", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/jose")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(raw) // who went away does not need it
}

// A peer is a gateway that proved itself.
type peer struct {
	id   identity.DeviceID
	name string
}

// authenticate tells who is at the other end: a gateway with a certificate of this
// authority, valid now and not suspended.
func (f *Feed) authenticate(r *http.Request) (peer, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return peer{}, errors.New("a gateway's certificate is needed")
	}
	var chain [][]byte
	for _, c := range r.TLS.PeerCertificates {
		chain = append(chain, c.Raw)
	}
	p := peer{name: nameOf(r)}
	leaf, err := f.trust.Gateway(chain, p.name, f.cfg.Now())
	if err != nil {
		return peer{}, err
	}
	if p.id, err = identity.DeviceIDOf(leaf.PublicKey); err != nil {
		return peer{}, err
	}
	f.cfg.Book.View(func(s *record.State) {
		if now := s.Device(p.id); now.State != "" {
			err = fmt.Errorf("the gateway's key is %s", now.State)
		}
	})
	return p, err
}

// nameOf returns the first name of the peer's certificate.
func nameOf(r *http.Request) string {
	leaf := r.TLS.PeerCertificates[0]
	if len(leaf.DNSNames) > 0 {
		return leaf.DNSNames[0]
	}
	if len(leaf.IPAddresses) > 0 {
		return leaf.IPAddresses[0].String()
	}
	return ""
}

// admit authenticates a request and refuses it otherwise.
func (f *Feed) admit(w http.ResponseWriter, r *http.Request) (peer, bool) {
	p, err := f.authenticate(r)
	if err == nil {
		return p, true
	}
	reason := string(identity.ReasonOf(err))
	if reason == "" {
		reason = "no_gateway"
	}
	f.audit(r.Context(), "gateway refused", slog.String("reason", reason), slog.String("remote", r.RemoteAddr), slog.String("detail", err.Error()))
	http.Error(w, err.Error(), http.StatusForbidden)
	return peer{}, false
}

func (f *Feed) audit(ctx context.Context, event string, attrs ...slog.Attr) {
	if err := f.cfg.Event(ctx, event, attrs...); err != nil {
		f.cfg.Log.Error("audit stream", "error", err.Error())
	}
}

// serveStream hears where a gateway stands and tells it everything from there
// on, until one of both ends it.
func (f *Feed) serveStream(w http.ResponseWriter, r *http.Request) {
	p, ok := f.admit(w, r)
	if !ok {
		return
	}
	claim, err := f.readClaim(io.LimitReader(r.Body, maxHello))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	behind, err := f.weigh(r.Context(), p, claim)
	switch {
	case errors.Is(err, errFork):
		http.Error(w, err.Error(), http.StatusConflict)
		return
	case err != nil:
		f.cfg.Log.Error("a gateway's position could not be judged", "gateway", p.name, "error", err.Error())
		http.Error(w, "not possible at present", http.StatusServiceUnavailable)
		return
	}
	ctx, leave, ok := f.enter(r.Context(), p)
	if !ok {
		http.Error(w, "too many gateways, or shutting down", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	out := newWriter(w, f.patience)
	if behind != nil {
		_ = out.send(behind.Event())
		_ = out.flush()
		return
	}
	f.cfg.Log.Info("gateway connected", "gateway", p.name, "leaves", claim.hello.Size, "bulletin", claim.number())
	err = f.push(ctx, out, claim)
	f.cfg.Log.Info("gateway left", "gateway", p.name, "error", fmt.Sprint(err))
}

// enter makes this the gateway's one stream: an older one is dropped.
func (f *Feed) enter(ctx context.Context, p peer) (context.Context, func(), bool) {
	ctx, cancel := context.WithCancel(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.streams[p.id]
	if f.closed || old == nil && len(f.streams) >= maxStreams {
		cancel()
		return nil, nil, false
	}
	if old != nil {
		old.cancel()
	}
	own := &entry{cancel}
	f.streams[p.id] = own
	return ctx, func() {
		cancel()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.streams[p.id] == own {
			delete(f.streams, p.id)
		}
	}, true
}

// A writer sends events and drops who does not read them.
type writer struct {
	control  *http.ResponseController
	buffer   *bufio.Writer
	patience time.Duration
}

func newWriter(w http.ResponseWriter, patience time.Duration) *writer {
	w.Header().Set("Content-Type", stream.MediaType)
	w.Header().Set("Cache-Control", "no-store")
	out := &writer{http.NewResponseController(w), bufio.NewWriterSize(w, 64<<10), patience}
	// The server's own limits are for requests that end.
	_ = out.control.SetReadDeadline(time.Time{})
	return out
}

func (w *writer) send(e stream.Event) error {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.patience))
	return stream.Write(w.buffer, e)
}

func (w *writer) flush() error {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.patience))
	return errors.Join(w.buffer.Flush(), w.control.Flush())
}
