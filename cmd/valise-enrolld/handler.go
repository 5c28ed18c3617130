// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"net/http"

	"valise/bulletin"
	"valise/enroll"
	"valise/enroll/acme"
	"valise/enroll/ca"
	"valise/enroll/desk"
	"valise/enroll/feed"
	"valise/identity"
	"valise/ledger"
	"valise/record"
)

// newFeed makes what gateways are told by.
func (o *office) newFeed(decisions *enroll.Authority, log *slog.Logger) (*feed.Feed, error) {
	return feed.New(feed.Config{
		Store: o.store, Book: o.book, Root: o.chain[1], Domain: o.cfg.Domain, Signer: o.bulletinKey,
		Heartbeat: o.cfg.Bulletin.Heartbeat.Duration, Gateways: o.cfg.Bulletin.RestoreGateways, Devices: decisions.Behind, Distrusted: distrusted(decisions), Event: o.audit.Event, Log: log,
	})
}

// distrusted are the devices whose evidence does not pass any more.
func distrusted(decisions *enroll.Authority) func() []bulletin.DeviceStanding {
	return func() (all []bulletin.DeviceStanding) {
		for _, d := range decisions.Distrusted() {
			all = append(all, bulletin.DeviceStanding{ID: d.Device, Since: d.Since, Reason: "evidence:" + d.Reason})
		}
		return all
	}
}

// newHandler puts everything that the authority serves behind one listener:
//
//	/acme/…              devices (RFC 8555)
//	/desk/v1/…           officers
//	/feed/v1/…           gateways, by their certificates
//	/manifest, /bulletin everybody: what is in force
//	/ledger/…            everybody: the record as salted hashes (C2SP tlog-tiles)
//	/crl, /ocsp          everybody: RFC 5280, RFC 6960
func (o *office) newHandler(decisions *enroll.Authority, gateways *feed.Feed, m *metrics, log *slog.Logger) (http.Handler, error) {
	front, err := acme.New(acme.Config{
		BaseURL: o.cfg.URL, Backend: decisions, Log: log, PerSecond: o.cfg.Limits.PerSecond, Burst: o.cfg.Limits.Burst,
		Refused: func(ctx context.Context, r *acme.Refusal, attrs ...slog.Attr) {
			o.refused(ctx, m, log, "enrollment refused", string(r.Reason), r.Detail, attrs)
		},
	})
	if err != nil {
		return nil, err
	}
	trust, root := identity.NewTrust(identity.Authority{Domain: o.cfg.Domain, Roots: []*x509.Certificate{o.chain[1]}}), sha256.Sum256(o.chain[1].Raw)
	officers, err := desk.New(desk.Config{
		URL: o.cfg.URL, Trust: trust, Root: root, Log: log, Event: o.audit.Event,
		Backend: decisions,
		Secret:  func() []byte { return o.store.Secret("desk") },
		Refused: func(ctx context.Context, r *desk.Refusal, attrs ...slog.Attr) {
			o.refused(ctx, m, log, "officer refused", r.Reason, r.Detail, attrs)
		},
	})
	if err != nil {
		return nil, err
	}
	status, err := ca.NewStatus(ca.StatusConfig{
		Store: o.store, Issuer: o.chain[0], Signer: o.issuerKey, Standings: o.standings(), Log: log,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", front)
	mux.Handle("/desk/v1/", officers)
	streams := gateways.Handler()
	for _, path := range []string{"/feed/v1/", feed.PathManifest, feed.PathBulletin} {
		mux.Handle(path, streams)
	}
	mux.Handle("/ledger/", http.StripPrefix("/ledger", ledger.Handler(o.store.Record())))
	return status.Handler(mux), nil
}

// standings are the record's where officers decide, and else all good: a lone
// authority revokes by not renewing.
func (o *office) standings() ca.Standings {
	lone := false
	o.book.View(func(s *record.State) { lone = s.Lone() })
	if lone {
		return &ca.Unrevoked{Store: o.store}
	}
	return &ca.Recorded{View: o.book.View, Store: o.store}
}

func (o *office) refused(ctx context.Context, m *metrics, log *slog.Logger, event, reason, detail string, attrs []slog.Attr) {
	m.refuse(reason)
	attrs = append(attrs, slog.String("detail", detail))
	if err := o.audit.Refused(ctx, event, reason, attrs...); err != nil {
		log.Error("audit stream", "error", err.Error())
	}
}
