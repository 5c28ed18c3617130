// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"valise/gateway/mailbox"
)

// desk is a store with the group "g" of devices 0 to 3, and files of device 0 in it.
type desk struct {
	*testing.T
	mailbox.Store
	now int64
}

func newDesk(t *testing.T, p place) *desk {
	t.Helper()
	s := p.open(t, mailbox.Quota{})
	for i := range 5 {
		arrive(t, s, device(i), incarnation, true)
	}
	apply(t, s, stepOf(0, 1, &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("i"), Joined: []mailbox.Device{device(0), device(1), device(2), device(3)}}))
	return &desk{T: t, Store: s, now: time.Now().Unix()}
}

func stepOf(sender, counter int, step *mailbox.Step) *mailbox.Submission {
	return &mailbox.Submission{Device: device(sender), Incarnation: incarnation, Counter: uint64(counter), Time: time.Now(), Step: step}
}

func (d *desk) claim(holder byte) mailbox.Claim {
	return mailbox.Claim{Holder: [16]byte{holder}, Now: d.now, Until: d.now + 100}
}

func (d *desk) file(n byte) mailbox.Blob {
	return mailbox.Blob{ID: [32]byte{n}, Group: []byte("g"), Size: 100, Owner: device(0), Name: fmt.Sprint("f", n), Created: d.now, Expires: d.now + 1000}
}

func (d *desk) begin(b mailbox.Blob, holder byte) (mailbox.Blob, error) {
	return d.BeginBlob(d.Context(), b, mailbox.BlobLimits{}, d.claim(holder))
}

// brought is a file that has arrived.
func (d *desk) brought(n byte) mailbox.Blob {
	d.Helper()
	b, err := d.begin(d.file(n), 1)
	if err == nil {
		err = d.FinishBlob(d.Context(), b, [16]byte{1}, b.Expires)
	}
	if err != nil {
		d.Fatal(err)
	}
	return b
}

// done says that a device is done with a file, and returns how many files that ended.
func (d *desk) done(n byte, who int) int {
	d.Helper()
	ended, err := d.BlobDone(d.Context(), [32]byte{n}, device(who), d.now+500)
	if err != nil {
		d.Fatalf("device %d is done with file %d: %v", who, n, err)
	}
	return len(ended)
}

func (d *desk) standing(n byte) mailbox.BlobStanding {
	d.Helper()
	st, err := d.BlobStanding(d.Context(), [32]byte{n}, device(0))
	if err != nil {
		d.Fatal(err)
	}
	return st
}

// A file ends when all who stood in the tree when it was announced have it, and no
// earlier; who came later is not waited for, and who is no member has no say.
func TestFileEndsWhenAllHaveIt(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		d := newDesk(t, p)
		d.brought(1)
		if n := d.done(1, 1); n != 0 {
			t.Error("a recipient had it before the others were known, and it ended")
		}
		if st := d.standing(1); st.Of != 0 {
			t.Errorf("recipients before the owner is done: %d of %d", st.Have, st.Of)
		}
		if n := d.done(1, 0); n != 0 {
			t.Error("announced, and ended")
		}
		if _, err := d.BlobDone(t.Context(), [32]byte{1}, device(4), d.now); !errors.Is(err, mailbox.ErrNotFound) {
			t.Errorf("a device that is known and no member: %v", err)
		}
		apply(t, d, stepOf(0, 2, &mailbox.Step{Group: []byte("g"), From: 0, To: 1, Info: []byte("i"), Joined: []mailbox.Device{device(4)}}))
		if n := d.done(1, 2); n != 0 {
			t.Error("two of three have it, and it ended")
		}
		if st := d.standing(1); st.Have != 2 || st.Of != 3 || st.End != mailbox.BlobKept {
			t.Errorf("%d of %d, %d", st.Have, st.Of, st.End)
		}
		if _, err := d.BlobDone(t.Context(), [32]byte{1}, device(9), d.now); !errors.Is(err, mailbox.ErrNotFound) {
			t.Errorf("a device that is no member: %v", err)
		}
		if _, err := d.BlobStanding(t.Context(), [32]byte{1}, device(1)); !errors.Is(err, mailbox.ErrNotFound) {
			t.Errorf("asked by who did not bring it: %v", err)
		}
		if n := d.done(1, 3); n != 1 {
			t.Error("all have it, and it did not end")
		}
		if n := d.done(1, 0); n != 0 {
			t.Error("it ended twice")
		}
		if st := d.standing(1); st.Have != 3 || st.Of != 3 || st.End != mailbox.BlobFetched || st.Expires != d.now+500 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

// Who was removed, suspended or purged holds nothing back, and who is left does.
func TestNobodyHoldsAFileBack(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		d := newDesk(t, p)
		fetched := func() int {
			list, err := d.FetchedBlobs(t.Context(), d.now+500, 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		d.brought(1)
		d.done(1, 0)
		apply(t, d, stepOf(0, 2, &mailbox.Step{Group: []byte("g"), From: 0, To: 1, Info: []byte("i"), Left: []mailbox.Device{device(1)}}))
		if err := d.Quarantine(t.Context(), device(2), true); err != nil {
			t.Fatal(err)
		}
		if n := fetched(); n != 0 {
			t.Errorf("one recipient is left, and %d files ended", n)
		}
		if err := d.Purge(t.Context(), device(3)); err != nil {
			t.Fatal(err)
		}
		if n := fetched(); n != 1 {
			t.Errorf("nobody is left, and %d files ended", n)
		}
		if n := fetched(); n != 0 {
			t.Errorf("%d files ended twice", n)
		}
	})
}

// One process writes a file at a time. A claim that ran out may be taken, and its former
// holder changes nothing any more.
func TestFileClaims(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		d := newDesk(t, p)
		b, err := d.begin(d.file(1), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.begin(d.file(1), 2); !errors.Is(err, mailbox.ErrClaimed) {
			t.Errorf("a second writer: %v", err)
		}
		b.Have, b.Progress = 40, []byte("here")
		if err := d.SaveBlob(t.Context(), b, d.claim(1)); err != nil {
			t.Fatal(err)
		}
		d.now += 200
		got, err := d.begin(d.file(1), 2)
		if err != nil || got.Have != 40 || string(got.Progress) != "here" {
			t.Fatalf("after its time: %+v, %v", got, err)
		}
		for what, err := range map[string]error{
			"save":   d.SaveBlob(t.Context(), b, d.claim(1)),
			"finish": d.FinishBlob(t.Context(), b, [16]byte{1}, d.now),
			"drop":   d.DropBlob(t.Context(), b, [16]byte{1}),
		} {
			if !errors.Is(err, mailbox.ErrClaimed) {
				t.Errorf("%s without the claim: %v", what, err)
			}
		}
		if _, err := d.BeginBlob(t.Context(), d.file(1), mailbox.BlobLimits{}, mailbox.Claim{Holder: [16]byte{3}, Now: d.now, Until: d.now + 9, Alone: true}); err != nil {
			t.Errorf("a process that is alone: %v", err)
		}
		if err := d.ReleaseBlob(t.Context(), got, [16]byte{3}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.begin(d.file(1), 4); err != nil {
			t.Errorf("after it was given back: %v", err)
		}
	})
}

// Bounds of one owner, of all, and of what has not arrived yet; what has ended counts no
// more.
func TestFileLimits(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		d := newDesk(t, p)
		begin := func(n byte, owner int, size uint64, l mailbox.BlobLimits) error {
			b := d.file(n)
			b.Owner, b.Size = device(owner), size
			_, err := d.BeginBlob(t.Context(), b, l, d.claim(1))
			return err
		}
		const mb = 1 << 20
		for i, c := range []struct {
			owner int
			size  uint64
			l     mailbox.BlobLimits
			want  error
		}{
			{0, 4 * mb, mailbox.BlobLimits{Owner: 5 * mb, Total: 5 * mb, Room: 5 * mb}, nil},
			{0, 2 * mb, mailbox.BlobLimits{Owner: 5 * mb}, mailbox.ErrQuota},
			{1, 2 * mb, mailbox.BlobLimits{Owner: 5 * mb, Total: 5 * mb}, mailbox.ErrRoom},
			{1, 2 * mb, mailbox.BlobLimits{Owner: 5 * mb, Room: 5 * mb}, mailbox.ErrRoom},
			{1, 2 * mb, mailbox.BlobLimits{Owner: 5 * mb, Total: 6 * mb, Room: 6 * mb}, nil},
		} {
			if err := begin(byte(i), c.owner, c.size, c.l); !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("file %d: %v, want %v", i, err, c.want)
			}
		}
		b := d.file(0)
		b.Have = 3 * mb
		if err := d.SaveBlob(t.Context(), b, d.claim(1)); err != nil {
			t.Fatal(err)
		}
		if err := begin(5, 2, 2*mb, mailbox.BlobLimits{Room: 5 * mb}); err != nil {
			t.Errorf("what has arrived needs no room any more: %v", err)
		}
		if err := d.DropBlob(t.Context(), b, [16]byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := begin(6, 0, 5*mb, mailbox.BlobLimits{Owner: 5 * mb}); err != nil {
			t.Errorf("what was dropped counts: %v", err)
		}
	})
}

// What has ended is remembered, wiped, and forgotten, each by one; brought again it is in
// another life, but only when its bytes are gone.
func TestFileEndsOnce(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		d := newDesk(t, p)
		b := d.brought(1)
		later := time.Unix(d.now+1000, 0)
		if list, err := d.ExpiredBlobs(t.Context(), later, 10); err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		for i := range 2 {
			if ended, err := d.ExpireBlob(t.Context(), b, later, later.Unix()+10); err != nil || ended != (i == 0) {
				t.Errorf("ended %v, %v", ended, err)
			}
		}
		if st := d.standing(1); st.End != mailbox.BlobExpired {
			t.Errorf("%+v", st)
		}
		if _, err := d.begin(d.file(1), 1); !errors.Is(err, mailbox.ErrClaimed) {
			t.Errorf("brought again before it was wiped: %v", err)
		}
		if list, err := d.LitteredBlobs(t.Context(), 10); err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if err := d.ForgetBlobs(t.Context(), later.Add(time.Hour), 10); err != nil {
			t.Fatal(err)
		}
		if err := d.WipedBlob(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		again, err := d.begin(d.file(1), 1)
		if err != nil || again.Life != 1 || again.End != mailbox.BlobKept || again.Complete {
			t.Fatalf("%+v, %v", again, err)
		}
		if err := d.FinishBlob(t.Context(), b, [16]byte{1}, d.now); !errors.Is(err, mailbox.ErrClaimed) {
			t.Errorf("the former life is finished: %v", err)
		}
		if err := d.DropBlob(t.Context(), again, [16]byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := d.WipedBlob(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		if err := d.ForgetBlobs(t.Context(), later, 10); err != nil {
			t.Fatal(err)
		}
		if list, err := d.Blobs(t.Context(), [32]byte{1}); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}
