// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"time"

	"valise/client/vault"
	"valise/wire"
)

// A fileRecord is a file about which something is to be said to the gateway, or heard from
// it (spec/wire.md, Section 8.2): one that this device has fetched, or brought.
type fileRecord struct {
	Blob         []byte         `json:"blob"`
	Message      MessageID      `json:"message"`
	Conversation ConversationID `json:"conversation"`
	Name         string         `json:"name"`
	Own          bool           `json:"own,omitempty"`  // brought by this device
	Said         bool           `json:"said,omitempty"` // the gateway knows that this device is done with it
}

// oweFile notes that the gateway is to be told that this device is done with a file.
func (e *Engine) oweFile(c *change, r *eventRecord, own bool) error {
	ref, err := wire.ParseFileReference(r.Reference)
	if err != nil {
		return err
	}
	e.filesDue = true
	return putJSON(c.Tx, tableFile, nil, ref.Blob[:], fileRecord{
		Blob: ref.Blob[:], Message: r.ID, Conversation: r.Conversation, Name: r.File.Name, Own: own,
	})
}

// followFiles tells the gateway what this device is done with, and asks what became of what
// it brought: when it connects, when the gateway says that something has, and now and then.
func (e *Engine) followFiles(ctx context.Context, l *link) error {
	ask := true
	for {
		news := e.bell.wait()
		e.mu.Lock()
		due := e.filesDue || ask
		ask = ask || e.filesNews
		e.filesDue, e.filesNews = false, false
		e.mu.Unlock()
		pause := fileFollowUp
		if due || ask {
			later, err := e.followAll(ctx, l, ask)
			if err != nil {
				return err
			}
			if ask = later && ask; later {
				pause = retryRefused
				e.mu.Lock()
				e.filesDue = true
				e.mu.Unlock()
				news = nil
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-news:
		case <-timer.C:
			ask = true
		case <-l.dead:
			timer.Stop()
			return l.cause()
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// followAll deals with each file, and says whether something has to be said again later.
func (e *Engine) followAll(ctx context.Context, l *link, ask bool) (later bool, err error) {
	list, err := e.followed()
	if err != nil {
		return false, stopped(err)
	}
	for _, f := range list {
		if len(f.Blob) != 32 || f.Said && !ask {
			continue
		}
		again, err := e.followFile(ctx, l, f)
		if err != nil {
			return false, err
		}
		later = later || again
	}
	return later, nil
}

// followed are the files that are not done with.
func (e *Engine) followed() (list []*fileRecord, err error) {
	err = e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		list, err = listJSON[fileRecord](tx, tableFile, nil)
		return err
	})
	return list, err
}

// followFile says or asks one thing. An error is the link's or the vault's.
func (e *Engine) followFile(ctx context.Context, l *link, f *fileRecord) (later bool, err error) {
	var request wire.Request = &wire.BlobDone{Blob: [32]byte(f.Blob)}
	if f.Said {
		request = &wire.GetBlob{Blob: [32]byte(f.Blob)}
	}
	answer, err := l.ask(ctx, request, 1, answerTimeout)
	if err != nil {
		return false, err
	}
	switch a := answer.(type) {
	case *wire.Result:
		switch a.Code {
		case wire.OK:
			if !f.Own {
				return false, e.forgetFile(f, nil)
			}
			f.Said = true
			e.mu.Lock()
			defer e.mu.Unlock()
			return false, stopped(e.update(func(c *change) error { return putJSON(c.Tx, tableFile, nil, f.Blob, f) }))
		case wire.NotFound: // nobody waits for it, or the gateway was restored
			return false, e.forgetFile(f, nil)
		}
		return true, nil
	case *wire.BlobState:
		switch a.State {
		case wire.BlobKept:
			return false, nil
		case wire.BlobFetched:
			return false, e.forgetFile(f, &Event{Kind: EventFileFetched, Count: int(a.Have), Of: int(a.Of)})
		}
		return false, e.forgetFile(f, &Event{Kind: EventFileExpired, Count: int(a.Have), Of: int(a.Of)})
	}
	return false, l.fail(wire.ErrMalformed)
}

// forgetFile ends what is known of a file, and shows what became of it.
func (e *Engine) forgetFile(f *fileRecord, ev *Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return stopped(e.update(func(c *change) error {
		err := c.Delete(tableFile, nil, f.Blob)
		if ev == nil || err != nil {
			return err
		}
		ev.Conversation, ev.Outgoing, ev.Time = f.Conversation, true, e.now()
		ev.Messages, ev.File = []MessageID{f.Message}, &FileInfo{Name: f.Name}
		if conv := e.conversations[f.Conversation]; conv != nil {
			ev.Name = conv.Name
		}
		return errors.Join(err, c.log(&eventRecord{Event: *ev}))
	}))
}
