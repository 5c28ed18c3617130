// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"

	"valise/ledger"
	"valise/wire"
)

// A Record is what a gateway holds of its authority's public record: all of it,
// because devices ask the gateway alone. Package gateway/feed keeps one. An
// error that wraps one of ledger's ErrUnknown, ErrYoung and ErrAhead is passed
// on; any other one means that this cannot be served at present.
type Record interface {
	ledger.Finder
	// Manifest and Bulletin return the newest, as the authority signed them.
	Manifest(ctx context.Context) ([]byte, error)
	Bulletin(ctx context.Context) ([]byte, error)
}

// getRecord serves a part of the record (spec/wire.md, Section 9). Nothing of
// it is secret, and nothing of it is the gateway's own word.
func (s *session) getRecord(ctx context.Context, r *wire.GetRecord) (wire.Answer, error) {
	record := s.g.cfg.Record
	if record == nil {
		return wire.NewResult(r.ID, wire.NoRecord), nil
	}
	data, err := partOf(ctx, record, r)
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return wire.NewResult(r.ID, wire.NotFound), nil
	case errors.Is(err, ledger.ErrYoung), errors.Is(err, ledger.ErrAhead):
		return wire.NewResult(r.ID, wire.NotCovered), nil
	case err != nil:
		return nil, err
	case len(data) == 0:
		return wire.NewResult(r.ID, wire.NotFound), nil
	}
	answer := &wire.Record{Part: r.Part, Data: data}
	answer.SetRequestID(r.ID)
	return answer, nil
}

func partOf(ctx context.Context, record Record, r *wire.GetRecord) ([]byte, error) {
	switch r.Part {
	case wire.PartManifest:
		return record.Manifest(ctx)
	case wire.PartBulletin:
		return record.Bulletin(ctx)
	case wire.PartCheckpoint:
		return record.Checkpoint(ctx)
	case wire.PartInclusion:
		inclusion, err := ledger.Prove(ctx, record, r.Subject, int64(r.Size))
		if err != nil {
			return nil, err
		}
		return inclusion.Marshal(), nil
	}
	growth, err := ledger.Grow(ctx, record, int64(r.Size))
	if err != nil {
		return nil, err
	}
	return growth.Marshal(), nil
}
