// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/store/relay"
	"valise/manifest"
	"valise/policy/bundle"
	"valise/statement"
	"valise/wire"
)

// What an authority publishes is what a gateway believes: under it labelled messages pass
// between loaded devices, and those without a label do not.
func TestLaw(t *testing.T) {
	a, err := NewAuthority("interieur.example")
	if err == nil {
		err = a.Enact()
	}
	dir := t.TempDir()
	if err == nil {
		err = a.Save(dir)
	}
	if err == nil {
		err = a.Publish(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, a, dir)
	loaded, err := Load(dir, a.Domain)
	if err != nil {
		t.Fatal(err)
	}
	from, to := connect(t, loaded, address, "from"), connect(t, loaded, address, "to")
	offer, _, err := to.device.Offer()
	if err != nil {
		t.Fatal(err)
	}
	g, err := from.Found(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	send, err := loaded.Law().Seal(g, []byte("text"), 1)
	if err == nil {
		err = from.submit(t.Context(), send)
	}
	if err != nil {
		t.Errorf("a labelled message: %v", err)
	}
	if send, err = Seal(g, []byte("text"), 2); err == nil {
		err = from.submit(t.Context(), send)
	}
	if err == nil || !strings.Contains(err.Error(), wire.LabelRequired.String()) && !strings.Contains(err.Error(), "22") {
		t.Errorf("without a label: %v", err)
	}
}

// serve runs a gateway on the papers of a folder.
func serve(t *testing.T, a *Authority, dir string) string {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	m, err := manifest.ParseManifest(read(ManifestFile), a.root)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bulletin.Verify(read(BulletinFile), m)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := bundle.ParseSigned(read(BundleFile))
	if err != nil {
		t.Fatal(err)
	}
	law, err := signed.Open(func(raw []byte) (*statement.Statement, error) {
		return statement.Verify(raw, a.Trust(), sha256.Sum256(a.root.Raw), time.Now())
	}, time.Now())
	if err != nil || law.Hash != b.Bundle {
		t.Fatalf("%v; the bulletin names %x", err, b.Bundle)
	}
	set, err := bulletin.NewSet().WithManifest(m).WithBulletin(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range b.Officers {
		if set.Officer(o.Address, o.Key, identity.RoleOfficer) != bulletin.Active {
			t.Errorf("%s is not in office", o.Address)
		}
	}
	certificate, err := a.Server()
	if err != nil {
		t.Fatal(err)
	}
	store, err := relay.Open(t.Context(), relay.Config{Path: filepath.Join(dir, "relay.db")})
	if err != nil {
		t.Fatal(err)
	}
	gw, err := gateway.New(gateway.Config{
		Trust: a.Trust(), Domain: a.Domain, Certificate: certificate, Store: store, Dir: dir, Standings: set,
		Rules: &rules.State{Bundle: law, File: a.Law().Bundle()}, Log: slog.New(slog.DiscardHandler),
		Audit: func(context.Context, string, string, ...slog.Attr) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- gw.Serve(ctx, socket) }()
	go func() { ended <- gw.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
		_ = socket.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return socket.LocalAddr().String()
}

func connect(t *testing.T, a *Authority, address, local string) *Conn {
	t.Helper()
	d, err := a.NewDevice(local)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
