// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"valise/internal/leak"
	"valise/internal/stage"
	"valise/internal/testenv"
)

// No text, file, file name, name of a conversation, invitation or PIN is in any log, audit
// stream or copy of one, in no form; and no address of a person in a log. The audit
// streams may name addresses: they are there to say who was refused.
func TestNoSecretsInLogs(t *testing.T) {
	t.Parallel()
	collector := testenv.Rsyslog(t)
	w := emptyStage(t, stage.Config{Syslog: collector.TCP})
	w.found("alice", "bob")
	var codes []string
	for _, name := range []string{"alice", "bob"} {
		p := w.newPerson(name, name, w.newReader(name, 1)[0])
		code, err := w.authority.Invite(w.ctx, p.Address)
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, code)
		if _, err := p.EnrollWith(w.ctx, code, w.gateway); err != nil {
			t.Fatal(err)
		}
		if err := p.Unlock(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	w.acquainted()
	const text, room, content = "planted-text-7f31c5 at noon", "planted-room-90ab12", "planted-content-e4d2c8 of the file"
	file := filepath.Join(t.TempDir(), "planted-name-5d6e7f.pdf")
	if err := os.WriteFile(file, []byte(strings.Repeat(content+"\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	alice, bob := w.people[0], w.people[1]
	if err := bob.follow(); err != nil {
		t.Fatal(err)
	}
	alice.must("send", "--name", room, bob.Address, text)
	alice.must("send", "-c", room, "--file", file)
	bob.has(text)
	w.until("bob to have the file", func() (bool, error) {
		list, err := bob.events()
		return slices.ContainsFunc(list, func(e event) bool { return e.File != nil && e.File.Path != "" }), err
	})
	// Refusals fill the audit streams: an invitation that was used, and one that is none.
	for _, code := range []string{codes[0], strings.Replace(codes[0], codes[0][len(codes[0])-8:], "AAAAAAAA", 1)} {
		p := w.newPerson("mallory"+code[len(code)-3:], "alice", w.newReader("r"+code[len(code)-3:], 1)[0])
		if _, err := p.EnrollWith(w.ctx, code, w.gateway); err == nil {
			t.Error("an invitation was good twice")
		}
	}
	for _, p := range []*stage.Process{w.gateway.Process(), w.authority.Process()} {
		p.Kill()
	}

	secrets := []leak.Secret{
		{Name: "text", Value: []byte(text)},
		{Name: "conversation", Value: []byte(room)},
		{Name: "file's content", Value: []byte(content)},
		{Name: "file's name", Value: []byte(filepath.Base(file))},
		{Name: "PIN, quoted", Value: []byte(`"` + stage.PIN + `"`)},
		{Name: "PIN behind an equals sign", Value: []byte("=" + stage.PIN)},
	}
	for _, code := range codes {
		secrets = append(secrets, leak.Secret{Name: "invitation", Value: []byte(code)})
	}
	logs, _ := filepath.Glob(filepath.Join(w.Dir, "logs", "*.log"))
	agents, _ := filepath.Glob(filepath.Join(w.Dir, "*", "agent.log"))
	logs = append(logs, agents...)
	streams := []string{w.gateway.Audit, w.authority.Audit, collector.Output()}
	if len(logs) < 3 || len(collector.Messages(t)) == 0 {
		t.Fatalf("%d logs, %d lines at the collector: there is nothing to look into", len(logs), len(collector.Messages(t)))
	}
	found, err := leak.Files(secrets, append(slices.Clone(logs), streams...)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
	// Whom people write to is in no log.
	found, err = leak.Files([]leak.Secret{{Name: "alice's address", Value: []byte(alice.Address)}, {Name: "bob's address", Value: []byte(bob.Address)}}, logs...)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
	// The search itself: a log that leaks is found among the others.
	bad := filepath.Join(t.TempDir(), "bad.log")
	if err := os.WriteFile(bad, []byte("sent "+hex.EncodeToString([]byte(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := leak.Files(secrets, append(slices.Clone(logs), bad)...); err != nil || len(found) == 0 {
		t.Errorf("a leak was not found: %v", err)
	}
}
