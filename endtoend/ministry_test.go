// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"strings"
	"testing"

	"valise/internal/stage"
)

// A ministry founds itself, and nobody enrolls without two officers.
func TestMinistry(t *testing.T) {
	ctx := t.Context()
	s, err := stage.New(stage.Config{Bin: commands(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); _ = s.Remove() })
	root := s.AttestationRoot("attestation")
	var officers []*stage.Officer
	for i, name := range []string{"olga", "oskar"} {
		card, err := s.NewCard(ctx, root, uint32(20000001+i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.NewReader(ctx, name, card); err != nil {
			t.Fatal(err)
		}
		officers = append(officers, s.NewOfficer(name, name+"@interieur.example", "officer", card))
	}
	pem, err := s.RootPEM(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.NewMinistry(ctx, "ministry", "interieur.example", []string{"alice@interieur.example,Alice Martin,Cabinet,"}, officers, pem)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.NewGateway(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	card, err := s.NewCard(ctx, root, 10000001)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewReader(ctx, "alice", card); err != nil {
		t.Fatal(err)
	}
	alice := s.NewOfficial("alice", "alice@interieur.example", card)
	out, err := alice.Enroll(ctx, a, g)
	if err != nil || !strings.Contains(out, "enrolled as alice@interieur.example") {
		t.Fatalf("%s: %v", out, err)
	}
}
