// SPDX-License-Identifier: Apache-2.0

package wire

import "bytes"

func filled(b byte) (out [32]byte) {
	copy(out[:], bytes.Repeat([]byte{b}, 32))
	return out
}

func filled16(b byte) (out [16]byte) {
	copy(out[:], bytes.Repeat([]byte{b}, 16))
	return out
}

// sampleFrames has at least one frame of every type, and both ends of what is
// optional. The vectors under spec/vectors are made of them.
func sampleFrames() map[string]Frame {
	head := submission{id{7}, 42}
	return map[string]Frame{
		"hello":              &Hello{Version: 1, Incarnation: filled16(0x11), Counter: 9, Cursor: 1 << 40, Agent: "valise/0.1"},
		"hello-begin":        &Hello{Version: 1, Incarnation: filled16(0x12), Begin: true},
		"welcome":            &Welcome{Version: 1, Time: 1790000000000, Device: filled(0xd1), Incarnation: filled16(0x11), Counter: 9, Acknowledged: 5, KeyPackages: 20},
		"put-key-packages":   &PutKeyPackages{submission: head, Packages: [][]byte{{1, 2}, {3}}},
		"put-last-resort":    &PutKeyPackages{submission: head, LastResort: true, Packages: [][]byte{{9}}},
		"get-key-packages":   &GetKeyPackages{id: id{8}, Suite: 0xf051, Address: "bob@interieur.example", Devices: [][32]byte{filled(2), filled(3)}},
		"key-packages":       &KeyPackages{id: id{8}, Entries: []KeyPackageEntry{{filled(2), false, []byte{1}}, {filled(3), true, []byte{2, 2}}}},
		"key-packages-empty": &KeyPackages{id: id{8}},
		"create-group":       &CreateGroup{submission: head, GroupInfo: []byte{1}, Tree: []byte{2}},
		"commit":             &Commit{submission: head, Group: []byte("g"), Epoch: 3, Commit: []byte{1}, Welcome: []byte{2}, GroupInfo: []byte{3}},
		"commit-no-welcome":  &Commit{submission: head, Group: []byte("g"), Epoch: 3, Commit: []byte{1}, GroupInfo: []byte{3}},
		"send":               &Send{submission: head, Group: []byte("g"), Epoch: 3, Message: []byte{1, 2, 3}},
		"get-group":          &GetGroup{id: id{9}, Group: []byte("g")},
		"group":              &Group{id: id{9}, Epoch: 4, GroupInfo: []byte{1}, Tree: []byte{2}},
		"get-directory":      &GetDirectory{id: id{10}, Prefix: "al"},
		"directory":          &Directory{id: id{10}, Chains: [][][]byte{{{1}, {2, 2}}, {{3}}}},
		"report":             &Report{id: id{11}, Delivery: 77, Group: []byte("g"), Sender: filled(5), Reason: "message_altered"},
		"ping":               &Ping{id{12}},
		"get-manifest":       &GetRecord{id: id{14}, Part: PartManifest},
		"get-inclusion":      &GetRecord{id: id{15}, Part: PartInclusion, Subject: filled(0x5b), Size: 300},
		"get-growth":         &GetRecord{id: id{16}, Part: PartGrowth, Size: 300},
		"record":             &Record{id: id{14}, Part: PartManifest, Data: []byte("e30")},
		"result":             NewResult(12, OK),
		"result-stale":       Stale(13, 5),
		"resume":             &Resume{Cursor: 6},
		"resume-ahead":       &Resume{Cursor: 6, Ahead: true},
		"resume-taken":       &Resume{Cursor: 6, Ahead: true, Taken: []uint64{9, 1 << 40}},
		"deliver-ahead":      &Deliver{Number: 900, Kind: DeliverAhead, Group: []byte("g"), Epoch: 3, Sender: filled(5), Time: 1790000000001, Payload: []byte{1}},
		"deliver":            &Deliver{Number: 7, Kind: DeliverContent, Group: []byte("g"), Epoch: 3, Sender: filled(5), Time: 1790000000001, Payload: []byte{1}},
		"ack":                &Ack{Number: 7},
		"notice":             &Notice{Code: NoticeDrained},
		"blob-put":           &BlobPut{Group: []byte("g"), Blob: filled(0xb1), Size: 1000},
		"blob-get":           &BlobGet{Blob: filled(0xb1), Offset: 500},
		"get-standings":      &GetStandings{id: id{17}, Bulletin: 12},
		"standings":          &Standings{id: id{17}, Bulletin: []byte("e30"), Orders: []Order{{Statement: []byte("e31"), Leaf: 40}, {Statement: []byte("e32"), Leaf: Unrecorded}}},
		"standings-same":     &Standings{id: id{18}},
		"lease":              &Lease{Group: []byte("g"), Epoch: 3, Milliseconds: 4000},
		"result-due":         ResultAbout(19, RemovalDue, filled(0xd2)),
		"attach":             &Attach{Token: filled(0xa7)},
		"blob-ready":         &BlobReady{Code: OK, Offset: 500, Size: 1000},
		"blob-done":          &BlobDone{id: id{20}, Blob: filled(0xb1)},
		"get-blob":           &GetBlob{id: id{21}, Blob: filled(0xb1)},
		"blob-state":         &BlobState{id: id{21}, State: BlobKept, Have: 2, Of: 5, Until: 1790000000},
		"blob-state-gone":    &BlobState{id: id{22}, State: BlobExpired, Have: 2, Of: 5},
		"get-bundle":         &GetBundle{id: id{17}},
		"get-bundle-rest":    &GetBundle{id: id{17}, Hash: filled(0xbd), Offset: 1 << 20},
		"bundle-part":        &BundlePart{id: id{17}, Hash: filled(0xbd), Size: 5, Offset: 2, Data: []byte{1, 2, 3}},
		"result-not-cleared": ResultAbout(18, NotCleared, filled(5)),
		"notice-bundle":      &Notice{Code: NoticeBundle},
	}
}

// A message is one of the structures of spec/message.md.
type message interface {
	structure
	Marshal() ([]byte, error)
}

func sampleMessages() map[string]message {
	return map[string]message{
		"header-unlabelled": &Header{Sequence: 1},
		"header-labelled": &Header{
			Policy: []byte{0x2a, 3, 4}, PolicyHash: bytes.Repeat([]byte{0xcc}, 32), Labelled: true,
			Label: []byte{1, 2}, Precedence: Flash, Sequence: 1 << 33,
		},
		"content-text": &Content{ID: filled16(1), MediaType: MediaText, Time: 1790000000002, Body: []byte("bonjour")},
		"content-reply": &Content{
			ID: filled16(2), MediaType: MediaText, InReplyTo: filled16(1), Time: 1790000000003, Expiry: 1790000100000,
			Extensions: []Extension{{Type: 1, Data: []byte{1}}, {Type: 2, Critical: true}},
		},
		"file-reference": &FileReference{
			Blob: filled(1), Size: 1016, PlainSize: 1000, ChunkSize: 65536, Key: filled(2), PlainHash: filled(3),
			Name: []byte("note.pdf"), MediaType: "application/pdf",
		},
		"resend-request":   &ResendRequest{Sender: filled(4), Sequences: []uint64{3, 9}},
		"expired-mail":     &ExpiredMail{First: 7, Since: 1790000000000},
		"restored-mail":    &RestoredMail{First: 7, Since: 1790000000000},
		"undelivered-mail": &UndeliveredMail{Incarnation: filled16(3), Counters: []uint64{4, 5, 1 << 40}},
	}
}

// parseMessage parses data as the structure that the sample called name is.
func parseMessage(like message, data []byte) (message, error) {
	switch like.(type) {
	case *Header:
		return orNil(ParseHeader(data))
	case *Content:
		return orNil(ParseContent(data))
	case *FileReference:
		return orNil(ParseFileReference(data))
	case *ExpiredMail:
		return orNil(ParseExpiredMail(data))
	case *RestoredMail:
		return orNil(ParseRestoredMail(data))
	case *UndeliveredMail:
		return orNil(ParseUndeliveredMail(data))
	}
	return orNil(ParseResendRequest(data))
}

func orNil[T message](m T, err error) (message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}
