// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"testing"

	"valise/gateway/rules"
	"valise/policy/bundle"
	"valise/wire"
)

// A device fetches the bundle part by part, and is told when there is another.
func TestBundleIsServed(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice := newDevice(t, gw, "alice")
	alice.connect(true, 0)
	alice.listen(0)
	l := alice.link
	if r := alice.ask(new(wire.GetBundle)); codeOf(r) != wire.NotFound {
		t.Fatalf("no bundle: %+v", r)
	}
	file := bytes.Repeat([]byte("signed "), wire.MaxBundlePart/4)
	first := &rules.State{Bundle: &bundle.Bundle{Version: 1, Hash: [32]byte{1}}, File: file}
	gw.SetRules(first)
	l.wantNotice(t, wire.NoticeBundle)
	var got []byte
	for uint32(len(got)) < uint32(len(file)) {
		part, ok := alice.ask(&wire.GetBundle{Hash: hashFor(len(got)), Offset: uint32(len(got))}).(*wire.BundlePart)
		if !ok || part.Hash != first.Bundle.Hash || int(part.Size) != len(file) || int(part.Offset) != len(got) {
			t.Fatalf("part %+v", part)
		}
		got = append(got, part.Data...)
	}
	if !bytes.Equal(got, file) {
		t.Error("the parts do not make the file")
	}
	for name, c := range map[string]struct {
		ask  *wire.GetBundle
		want wire.Code
	}{
		"held already":      {&wire.GetBundle{Hash: [32]byte{1}}, wire.OK},
		"another one's end": {&wire.GetBundle{Hash: [32]byte{2}, Offset: 5}, wire.BundleChanged},
		"beyond its end":    {&wire.GetBundle{Hash: [32]byte{1}, Offset: uint32(len(file))}, wire.Malformed},
	} {
		if r := alice.ask(c.ask); codeOf(r) != c.want {
			t.Errorf("%s: %+v", name, r)
		}
	}
	gw.SetRules(&rules.State{Bundle: first.Bundle, File: file, Missing: true})
	if r := alice.ask(new(wire.GetBundle)); codeOf(r) != wire.NoBundle {
		t.Errorf("a bundle that is not in force: %+v", r)
	}
}

func hashFor(offset int) [32]byte {
	if offset == 0 {
		return [32]byte{}
	}
	return [32]byte{1}
}

func codeOf(a wire.Answer) wire.Code {
	r, ok := a.(*wire.Result)
	if !ok {
		return 0xffff
	}
	return r.Code
}

func (l *link) wantNotice(t *testing.T, code wire.NoticeCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case got := <-l.notices:
			if got == code {
				return
			}
		case <-ctx.Done():
			t.Fatalf("no notice %d", code)
		}
	}
}

// The frame's bound is the loader's.
func TestBundleBound(t *testing.T) {
	if wire.MaxBundle != bundle.MaxSize {
		t.Errorf("frames carry %d bytes, the loader takes %d", wire.MaxBundle, bundle.MaxSize)
	}
}
