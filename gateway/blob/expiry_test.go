// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"errors"
	"testing"
	"time"

	"valise/gateway/mailbox"
)

// records has another name than one of its methods.
type records = mailbox.Blobs

// listed is the real store with something happening after expired files were
// listed.
type listed struct {
	records
	then func()
}

func (l *listed) ExpiredBlobs(ctx context.Context, now time.Time, limit int) ([]mailbox.Blob, error) {
	list, err := l.records.ExpiredBlobs(ctx, now, limit)
	l.then()
	return list, err
}

func store(t *testing.T, s *Store, data []byte, up Upload) {
	t.Helper()
	w := put(t, s, up)
	defer w.Close()
	if err := w.Append(data[w.Offset():]); len(data) > int(w.Offset()) && err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

func there(t *testing.T, s *Store, up Upload) bool {
	t.Helper()
	_, err := content(t, s, up)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// An upload that is completed while expired ones are being collected is not
// taken for the unfinished one that was listed.
func TestExpiryLooksAgain(t *testing.T) {
	for _, completed := range []bool{true, false} {
		s := openBlobs(t, Config{Expiry: time.Hour})
		data, up := file(1000)
		w := put(t, s, up)
		if err := w.Append(data[:500]); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		later := time.Now().Add(2 * partialExpiry)
		s.cfg.Now = func() time.Time { return later }
		s.cfg.Store = &listed{s.cfg.Store, func() {
			if completed {
				store(t, s, data, up)
			}
		}}
		if err := s.Expire(t.Context(), later); err != nil {
			t.Fatal(err)
		}
		if there(t, s, up) != completed {
			t.Errorf("completed meanwhile: %v, there afterwards: %v", completed, !completed)
		}
	}
}

// Who brings a file that is there already, even one whose time is over, finds it
// kept for as long as a new one.
func TestRepeatedUploadLivesAnew(t *testing.T) {
	s := openBlobs(t, Config{Expiry: time.Hour})
	now := time.Now()
	s.cfg.Now = func() time.Time { return now }
	data, up := file(1000)
	store(t, s, data, up)
	for _, wait := range []time.Duration{50 * time.Minute, 70 * time.Minute} {
		now = now.Add(wait)
		store(t, s, data, up)
		now = now.Add(30 * time.Minute)
		if err := s.Expire(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if !there(t, s, up) {
			t.Errorf("brought again after %v, the file was gone half an hour later", wait)
		}
	}
	now = now.Add(time.Hour)
	if there(t, s, up) {
		t.Error("the file never expires")
	}
}

// A file counts with at least one unit: a quota of bytes bounds the number of
// files too.
func TestSmallFilesCount(t *testing.T) {
	s := openBlobs(t, Config{Quota: 3 * mailbox.BlobUnit})
	for i := range 4 {
		_, up := file(1 + i)
		w, err := s.Put(t.Context(), up)
		if i < 3 && err != nil || i == 3 && !errors.Is(err, ErrQuota) {
			t.Errorf("file %d: %v", i+1, err)
		}
		if err == nil {
			_ = w.Close()
		}
	}
}
