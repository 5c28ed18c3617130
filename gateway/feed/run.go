// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"valise/bulletin/stream"
	"valise/ledger"
)

// Run follows the authority and watches the spool until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if f.url != nil {
		g.Go(func() error { return f.follow(ctx) })
	}
	if f.cfg.Spool != "" {
		g.Go(func() error { return f.watch(ctx) })
	}
	g.Go(func() error { <-ctx.Done(); return nil })
	return g.Wait()
}

// follow connects, and connects again.
func (f *Feed) follow(ctx context.Context) error {
	client := &http.Client{
		Transport: f.transport(),
		// Elsewhere is not the authority, and need not even be asked over TLS.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	pause := firstPause
	for {
		told, err := f.connect(ctx, client)
		f.connected.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		if told && !errors.Is(err, ErrFork) {
			pause = firstPause
		}
		wait := pause/2 + rand.N(pause)
		f.cfg.Log.Warn("the authority's feed ended", "error", fmt.Sprint(err), "again_in", wait.String())
		pause = min(2*pause, lastPause)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-f.hurry:
			timer.Stop()
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(hurryPause):
			}
		case <-timer.C:
		}
	}
}

// Hurry has the authority asked at once, where it is not heard at the moment: another gateway
// has heard something newer.
func (f *Feed) Hurry() {
	if f.connected.Load() {
		return // what there is will come
	}
	select {
	case f.hurry <- struct{}{}:
	default:
	}
}

// transport speaks to nobody but the authority: its certificate must come from
// the pinned root.
func (f *Feed) transport() *http.Transport {
	roots := x509.NewCertPool()
	roots.AddCert(f.cfg.Root)
	return &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots, Time: f.cfg.Now,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.cfg.Certificate(), nil },
		},
		TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: time.Minute, DisableCompression: true,
	}
}

// connect opens a stream and takes in what comes until it ends. told says that
// something came.
func (f *Feed) connect(ctx context.Context, client *http.Client) (told bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	response, err := f.open(ctx, client)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	late := time.AfterFunc(silence, func() { cancel(errors.New("the authority fell silent")) })
	defer late.Stop()
	t := &taker{f: f, ctx: ctx, in: bufio.NewReaderSize(heard{response.Body, late}, 64<<10)}
	f.cfg.Log.Info("following the authority", "url", f.cfg.URL)
	for {
		e, err := stream.Read(t.in)
		if err != nil {
			return told, errors.Join(err, context.Cause(ctx), t.flush())
		}
		told = true
		f.connected.Store(true)
		if e.Kind == stream.KindBehind {
			behind, err := e.Behind()
			if err != nil {
				return told, err
			}
			late.Stop()
			return told, errors.Join(f.giveBack(ctx, client, behind), errors.New("the authority knew less than this gateway"))
		}
		if err := t.take(e); err != nil {
			return told, errors.Join(err, t.flush())
		}
	}
}

// heard puts off the end for silence with all that arrives: a large bulletin takes
// longer than that on a slow line.
type heard struct {
	io.Reader
	late *time.Timer
}

// Read implements io.Reader.
func (h heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.late.Reset(silence)
	}
	return n, err
}

// open says where we stand.
func (f *Feed) open(ctx context.Context, client *http.Client) (*http.Response, error) {
	held, err := f.copy.held(ctx)
	if err != nil {
		return nil, err
	}
	hello := stream.Hello{Size: held.size}
	f.mu.Lock()
	if f.manifest != nil {
		hello.Manifest = f.manifest.Number
	}
	f.mu.Unlock()
	return f.post(ctx, client, stream.PathStream, http.StatusOK, func(w io.Writer) error {
		if err := stream.Write(w, hello.Event()); err != nil {
			return err
		}
		return documents(w, held, held.bulletin)
	})
}

// documents writes manifest, checkpoint and bulletin, those that there are.
func documents(w io.Writer, held *held, last []byte) error {
	for _, e := range []stream.Event{
		{Kind: stream.KindManifest, Body: held.manifest}, {Kind: stream.KindCheckpoint, Body: held.checkpoint}, {Kind: stream.KindBulletin, Body: last},
	} {
		if e.Body == nil {
			continue
		}
		if err := stream.Write(w, e); err != nil {
			return err
		}
	}
	return nil
}

// post sends what write writes, and returns the answer if it has the status.
func (f *Feed) post(ctx context.Context, client *http.Client, path string, status int, write func(io.Writer) error) (*http.Response, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	defer r.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url.JoinPath(path).String(), r)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", stream.MediaType)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != status {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxReply))
		return nil, fmt.Errorf("the authority answers %s: %.200q", response.Status, text)
	}
	return response, nil
}

// giveBack gives an authority what it lost: everything from where it stands.
func (f *Feed) giveBack(ctx context.Context, client *http.Client, behind stream.Behind) error {
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	held, err := f.copy.held(ctx)
	if err != nil {
		return err
	}
	f.cfg.Log.Warn("the authority knows less than this gateway: giving back", "from", behind.Size, "to", held.size, "its_bulletin", behind.Bulletin)
	response, err := f.post(ctx, client, stream.PathRestore, http.StatusNoContent, func(w io.Writer) error {
		return f.writeBack(ctx, w, held, behind.Size)
	})
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// A taker takes in events of one stream. Leaves are put on disk together as long
// as more of them are at hand; what they order is obeyed at once.
type taker struct {
	f     *Feed
	ctx   context.Context
	in    *bufio.Reader
	items []ledger.Item
	bytes int
}

func (t *taker) take(e stream.Event) error {
	if e.Kind == stream.KindItem {
		return t.takeItem(e)
	}
	if err := t.flush(); err != nil {
		return err
	}
	switch e.Kind {
	case stream.KindManifest:
		return t.f.takeManifest(t.ctx, e.Body)
	case stream.KindCheckpoint:
		return t.f.takeCheckpoint(t.ctx, e.Body)
	case stream.KindBulletin:
		return t.f.takeBulletin(t.ctx, e.Body)
	case stream.KindStatement:
		if err := t.f.takeStatement(t.ctx, e.Body); err != nil {
			t.f.cfg.Log.Warn("a forwarded statement is not obeyed", "error", err.Error())
		}
		return nil
	case stream.KindHeartbeat:
		return nil
	}
	return fmt.Errorf("%w: a %v from an authority", stream.ErrMalformed, e.Kind)
}

func (t *taker) takeItem(e stream.Event) error {
	i, err := e.Item()
	if err != nil {
		return err
	}
	entry, err := ledger.ParseEntry(i.Entry)
	if err != nil {
		return err
	}
	if !entry.Records(i.Payload) {
		return refuse("leaf", fmt.Errorf("leaf %d is not of the payload beside it", i.Index))
	}
	item := ledger.Item{Index: i.Index, Entry: entry, Payload: i.Payload}
	if len(t.items) > 0 && item.Index != t.items[len(t.items)-1].Index+1 {
		return refuse("leaf", fmt.Errorf("leaf %d after leaf %d", item.Index, t.items[len(t.items)-1].Index))
	}
	t.items = append(t.items, item)
	t.bytes += len(item.Payload)
	if entry.Kind == ledger.KindStatement {
		t.f.obeyLeaf(t.ctx, item)
	}
	if len(t.items) < batch && t.bytes < batchBytes && t.in.Buffered() > 0 {
		return nil
	}
	return t.flush()
}

func (t *taker) flush() error {
	items := t.items
	t.items, t.bytes = nil, 0
	if len(items) == 0 {
		return nil
	}
	// A stream that ended has no context any more; what it told is kept.
	return t.f.takeLeaves(context.WithoutCancel(t.ctx), items)
}
