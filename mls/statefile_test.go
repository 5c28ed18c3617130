// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A stateFile is a state as some version of this package wrote it, with a
// message for it. Files are added, never changed: what was once written must
// load for ever.
type stateFile struct {
	Seed      string `json:"signature_seed"`
	State     string `json:"state"` // Delta.Marshal
	Message   string `json:"message"`
	Late      string `json:"late"`    // of an earlier epoch
	Skipped   string `json:"skipped"` // a kept key of the present epoch
	Commit    string `json:"commit"`
	Authentic string `json:"epoch_authenticator"` // after the commit
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}

// Older encodings load, and work: content, late content, a skipped key, a
// pending own Update, a commit. MLS_WRITE_STATE=NAME writes another file.
func TestOlderStatesLoad(t *testing.T) {
	if name := os.Getenv("MLS_WRITE_STATE"); name != "" {
		writeStateFile(t, filepath.Join("testdata", "state-"+name+".json"))
	}
	files, err := filepath.Glob(filepath.Join("testdata", "state-*.json"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no state files in testdata")
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			must(t, err)
			var f stateFile
			must(t, json.Unmarshal(data, &f))
			disk, err := ParseDelta(unhex(t, f.State))
			must(t, err)
			b := &device{
				t: t, cfg: Config{Authenticator: trustAll{}}, disk: disk,
				id: Identity{BasicCredential([]byte("b")), ed25519.NewKeyFromSeed(unhex(t, f.Seed))},
			}
			b.restart()
			b.reads(unhex(t, f.Message), "message")
			b.reads(unhex(t, f.Late), "late")
			b.reads(unhex(t, f.Skipped), "skipped")
			b.receive(unhex(t, f.Commit))
			equal(t, "epoch authenticator", b.g.EpochAuthenticator(), unhex(t, f.Authentic))
		})
	}
}

func writeStateFile(t *testing.T, name string) {
	all := group(t, SuiteX25519, 3)
	a, b, c := all[0], all[1], all[2]
	late := c.encrypt("late")
	p := a.commit(CommitParams{})
	b.receive(p.Commit)
	c.receive(p.Commit)
	skipped := a.encrypt("skipped")
	b.reads(a.encrypt("read"), "read")
	message := a.encrypt("message")
	s, err := b.g.ProposeUpdate(nil)
	must(t, err)
	b.save(s.Delta)
	a.receive(s.Message)
	state := b.disk.Marshal()
	p = a.commit(CommitParams{})
	seed := b.sign.Signer.(ed25519.PrivateKey).Seed()
	data, err := json.MarshalIndent(stateFile{
		hex.EncodeToString(seed), hex.EncodeToString(state), hex.EncodeToString(message),
		hex.EncodeToString(late), hex.EncodeToString(skipped), hex.EncodeToString(p.Commit), hex.EncodeToString(a.g.EpochAuthenticator()),
	}, "", "\t")
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, append(data, '\n'), 0o644))
}
