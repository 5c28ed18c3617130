// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"valise/mls"
	"valise/transport"
	"valise/wire"
)

func randomFile(n int) ([]byte, [32]byte) {
	data := make([]byte, n)
	_, _ = rand.Read(data)
	return data, sha256.Sum256(data)
}

// beginPut opens an upload and returns what the gateway said.
func (d *testDevice) beginPut(group []byte, id [32]byte, size uint64) (transport.Stream, *wire.BlobReady) {
	d.t.Helper()
	stream, err := d.link.open(wire.StreamBlobPut, &wire.BlobPut{Group: group, Blob: id, Size: size})
	if err != nil {
		d.t.Fatal(err)
	}
	frame, err := wire.Read(stream)
	if err != nil {
		d.t.Fatalf("%s: upload: %v", d.local, err)
	}
	return stream, frame.(*wire.BlobReady)
}

func (d *testDevice) put(group []byte, id [32]byte, data []byte) wire.Code {
	d.t.Helper()
	stream, ready := d.beginPut(group, id, uint64(len(data)))
	if ready.Code != wire.OK {
		return ready.Code
	}
	_, _ = stream.Write(data[ready.Offset:])
	_ = stream.Close()
	frame, err := wire.Read(stream)
	if err != nil {
		d.t.Fatalf("%s: upload: %v", d.local, err)
	}
	return frame.(*wire.Result).Code
}

func (d *testDevice) get(id [32]byte, offset uint64) ([]byte, wire.Code) {
	d.t.Helper()
	stream, err := d.link.open(wire.StreamBlobGet, &wire.BlobGet{Blob: id, Offset: offset})
	if err != nil {
		d.t.Fatal(err)
	}
	_ = stream.SetReadDeadline(time.Now().Add(patience))
	frame, err := wire.Read(stream)
	if err != nil {
		d.t.Fatalf("%s: download: %v", d.local, err)
	}
	ready := frame.(*wire.BlobReady)
	if ready.Code != wire.OK {
		return nil, ready.Code
	}
	data, err := io.ReadAll(stream)
	if err != nil || uint64(len(data)) != ready.Size-offset {
		d.t.Fatalf("%s: download of %d bytes: %d, %v", d.local, ready.Size, len(data), err)
	}
	return data, wire.OK
}

// A file goes through the group, resumes in both directions, and is nobody
// else's business.
func TestFiles(t *testing.T) { overBoth(t, testFiles) }

func testFiles(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, _ := pair(t, gw)
	carol := newDevice(t, gw, "carol").ready()
	data, id := randomFile(3 << 20)

	// Broken off after the first megabyte, resumed on another connection.
	stream, ready := alice.beginPut(ga.ID(), id, uint64(len(data)))
	if ready.Code != wire.OK || ready.Offset != 0 {
		t.Fatalf("ready: %+v", ready)
	}
	_, _ = stream.Write(data[:1<<20])
	partial := filepath.Join(gw.dir, "blobs")
	until(t, "a megabyte on disk", func() bool { return partialSize(partial) == 1<<20 })
	if _, code := bob.get(id, 0); code != wire.NotFound {
		t.Errorf("a partial file was handed out: %v", code)
	}
	alice.connect(false, 0)
	stream, ready = alice.beginPut(ga.ID(), id, uint64(len(data)))
	if ready.Code != wire.OK || ready.Offset != 1<<20 {
		t.Fatalf("ready to resume: %+v", ready)
	}
	_, _ = stream.Write(data[ready.Offset:])
	_ = stream.Close()
	if frame, err := wire.Read(stream); err != nil || frame.(*wire.Result).Code != wire.OK {
		t.Fatalf("%+v, %v", frame, err)
	}

	got, code := bob.get(id, 0)
	if code != wire.OK || !bytes.Equal(got, data) {
		t.Fatalf("bob got %d bytes, %v", len(got), code)
	}
	if got, _ := bob.get(id, 2<<20); !bytes.Equal(got, data[2<<20:]) {
		t.Error("the end of the file differs")
	}
	if got, code := bob.get(id, uint64(len(data))); code != wire.OK || len(got) != 0 {
		t.Errorf("from the end on: %d bytes, %v", len(got), code)
	}
	if _, code := bob.get(id, uint64(len(data))+1); code != wire.TooLarge {
		t.Errorf("from beyond the end: %v", code)
	}
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Errorf("a complete file again: %v", code)
	}

	if _, code := carol.get(id, 0); code != wire.NotFound {
		t.Errorf("a device outside the group: %v", code)
	}
	gw.audit.want(t, eventRefusedBlob, "not_member")
	if _, ready := carol.beginPut(ga.ID(), [32]byte{1}, 5); ready.Code != wire.NotMember {
		t.Errorf("upload from outside the group: %v", ready.Code)
	}
	if _, ready := alice.beginPut([]byte("../../etc/passwd"), [32]byte{1}, 5); ready.Code != wire.UnknownGroup {
		t.Errorf("upload for no group: %v", ready.Code)
	}
	// Knowing a file's id does not make it available to another group.
	gc := carol.found()
	if _, ready := carol.beginPut(gc.ID(), id, uint64(len(data))); ready.Offset != 0 {
		t.Errorf("another group is spared %d bytes", ready.Offset)
	}
	if _, code := carol.get(id, 0); code != wire.NotFound {
		t.Errorf("after naming it: %v", code)
	}
}

func partialSize(dir string) int64 {
	files, _ := filepath.Glob(filepath.Join(dir, "*.part"))
	if len(files) != 1 {
		return -1
	}
	info, err := os.Stat(files[0])
	if err != nil {
		return -1
	}
	return info.Size()
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Bytes that do not hash to the id are dropped as a whole; what is too short or
// too long is refused.
func TestFileRefusals(t *testing.T) { overBoth(t, testFileRefusals) }

func testFileRefusals(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by, limits: Limits{BlobQuota: 1 << 20}})
	alice, bob, ga, _ := pair(t, gw)
	data, id := randomFile(100 << 10)

	if code := alice.put(ga.ID(), id, flip(data, 5000)); code != wire.HashMismatch {
		t.Errorf("altered: %v", code)
	}
	gw.audit.want(t, eventRefusedBlob, "hash_mismatch")
	if _, ready := alice.beginPut(ga.ID(), id, uint64(len(data))+1); ready.Offset != 0 {
		t.Errorf("something of the altered file was kept: %+v", ready)
	}
	alice.connect(false, 0)
	if _, ready := alice.beginPut(ga.ID(), id, uint64(len(data))); ready.Code != wire.TooLarge {
		t.Errorf("another size for the same file: %v", ready.Code)
	}
	gw.audit.want(t, eventRefusedBlob, "file_size")

	other, otherID := randomFile(50 << 10)
	stream, _ := alice.beginPut(ga.ID(), otherID, uint64(len(other)))
	_, _ = stream.Write(append(other, 0))
	_ = stream.Close()
	if frame, err := wire.Read(stream); err != nil || frame.(*wire.Result).Code != wire.Malformed {
		t.Errorf("a byte too many: %+v, %v", frame, err)
	}
	gw.audit.want(t, eventRefusedBlob, "file_length")

	big, bigID := randomFile(2 << 20)
	if code := bob.put(ga.ID(), bigID, big); code != wire.FileQuota {
		t.Errorf("above the quota: %v", code)
	}
	gw.audit.want(t, eventRefusedBlob, "file_quota")
	fits, fitsID := randomFile(1 << 20)
	if code := bob.put(ga.ID(), fitsID, fits); code != wire.OK {
		t.Errorf("within the quota: %v", code)
	}
	if got, code := alice.get(fitsID, 0); code != wire.OK || !bytes.Equal(got, fits) {
		t.Errorf("alice got %d bytes, %v", len(got), code)
	}
}

// Messages are delivered while all slots for files are in use; one transfer more
// is refused.
func TestFilesDoNotStarveMessages(t *testing.T) { overBoth(t, testFilesDoNotStarveMessages) }

func testFilesDoNotStarveMessages(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, gb := pair(t, gw)
	data, id := randomFile(8 << 20)
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Fatal(code)
	}
	// Bob opens all his downloads and reads none of them.
	for range maxTransfers {
		stream, err := bob.link.open(wire.StreamBlobGet, &wire.BlobGet{Blob: id})
		if err != nil {
			t.Fatal(err)
		}
		if frame, err := wire.Read(stream); err != nil || frame.(*wire.BlobReady).Code != wire.OK {
			t.Fatal(frame, err)
		}
	}
	if _, code := bob.get(id, 0); code != wire.RateLimited {
		t.Errorf("one transfer too many: %v", code)
	}
	gw.audit.want(t, eventRefusedBlob, "too_many_transfers")
	for range 20 {
		alice.must(alice.sealed(ga, "urgent"))
		if got := bob.read(gb); got != "urgent" {
			t.Fatalf("bob read %q", got)
		}
	}
}

// A device that was removed from the group gets its files no more.
func TestFilesAfterRemoval(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob, ga, _ := pair(t, gw)
	data, id := randomFile(1000)
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Fatal(code)
	}
	if _, code := bob.get(id, 0); code != wire.OK {
		t.Fatal(code)
	}
	_, commit := alice.commitOf(ga, mls.RemoveProposal(leafOf(t, ga, bob)))
	alice.must(commit)
	if _, code := bob.get(id, 0); code != wire.NotFound {
		t.Errorf("after the removal: %v", code)
	}
}

// Files expire, unfinished ones too.
func TestFilesExpire(t *testing.T) {
	gw := startGateway(t, gatewayOptions{limits: Limits{BlobExpiry: time.Hour}})
	alice, _, ga, _ := pair(t, gw)
	data, id := randomFile(1000)
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Fatal(code)
	}
	_, _ = alice.beginPut(ga.ID(), [32]byte{9}, 5000)
	if err := gw.blobs.Expire(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, code := alice.get(id, 0); code != wire.OK {
		t.Fatalf("too early: %v", code)
	}
	alice.connect(false, 0) // lets go of the unfinished upload
	if err := gw.blobs.Expire(t.Context(), time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, code := alice.get(id, 0); code != wire.NotFound {
		t.Errorf("after its time: %v", code)
	}
	if err := gw.blobs.Expire(t.Context(), time.Now().Add(30*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(gw.dir, "blobs"))
	if err != nil || len(left) != 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}
