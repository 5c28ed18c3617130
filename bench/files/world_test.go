// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"valise/client"
	"valise/client/vault"
	"valise/gateway"
	"valise/identity"
	"valise/internal/store/relay"
	"valise/internal/testenv/paper"
)

const patience = 10 * time.Minute

// A world is a gateway, and an authority on paper.
type world struct {
	b       *testing.B
	paper   *paper.Authority
	dir     string // on a disk that syncs
	gateway string // its address
	through string // where devices dial; empty: the gateway itself
}

func newWorld(b *testing.B) *world {
	b.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "valise-files") // /tmp may be in memory, which does not sync
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{b: b, paper: paper.New(b, "interieur.example"), dir: dir}
	mail, err := relay.OpenJournaled(context.Background(), relay.Config{Path: filepath.Join(dir, "relay.db")})
	if err != nil {
		b.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{
		Trust: w.paper.Trust(), Domain: w.paper.Domain, Certificate: w.paper.Gateway("127.0.0.1"), Store: mail, Dir: dir,
		Log: slog.New(slog.DiscardHandler), Audit: func(context.Context, string, string, ...slog.Attr) error { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	w.gateway = conn.LocalAddr().String()
	serving, endServing := context.WithCancel(context.Background())
	running, endRunning := context.WithCancel(context.Background())
	var servers, runners sync.WaitGroup
	servers.Go(func() { _ = g.Serve(serving, conn) })
	runners.Go(func() { _ = g.Run(running) })
	b.Cleanup(func() {
		endServing()
		servers.Wait()
		endRunning()
		runners.Wait()
		_ = conn.Close()
		if err := mail.Close(); err != nil {
			b.Error(err)
		}
	})
	return w
}

// A device is an engine with its vault.
type device struct {
	*client.Engine
	b       *testing.B
	address identity.Address
}

func (w *world) device(name string) *device {
	b := w.b
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	unlock, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	certified := w.paper.Device(name, key)
	v, err := vault.Create(context.Background(), filepath.Join(w.dir, name+".db"), certified.ID, unlock)
	if err != nil {
		b.Fatal(err)
	}
	at := w.gateway
	if w.through != "" {
		at = w.through
	}
	e, err := client.New(context.Background(), client.Config{
		Address: certified.Address, Chain: certified.Chain, Signer: key, Vault: v, Trust: w.paper.Trust(), Gateway: at,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = e.Run(ctx)
	}()
	b.Cleanup(func() {
		cancel()
		<-ended
		v.Lock()
	})
	d := &device{Engine: e, b: b, address: certified.Address}
	d.until("is online", func() bool { return e.State().Name == client.StateOnline })
	return d
}

// until waits for something to be so.
func (d *device) until(what string, ok func() bool) {
	d.b.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		news := d.Changed()
		if ok() {
			return
		}
		select {
		case <-news:
		case <-deadline.C:
			d.b.Fatalf("%s: %s: not within %v; %+v", d.address, what, patience, d.State())
		}
	}
}

// pair are two devices with a conversation.
func (w *world) pair() (alice, bob *device, conv client.ConversationID) {
	w.b.Helper()
	alice, bob = w.device("alice"), w.device("bob")
	deadline := time.Now().Add(patience)
	for {
		list, err := alice.Contacts(context.Background(), bob.address.String())
		if err == nil && len(list) > 0 {
			break
		}
		if time.Now().After(deadline) {
			w.b.Fatal("bob cannot be reached")
		}
		time.Sleep(20 * time.Millisecond)
	}
	conv, err := alice.Start(context.Background(), "files", []identity.Address{bob.address})
	if err != nil {
		w.b.Fatal(err)
	}
	bob.until("is in", func() bool { return len(bob.Conversations()) == 1 })
	return alice, bob, conv
}

// following are a device's events, from a cursor on.
type following struct {
	d     *device
	after string
}

// next waits for the next event of a kind from somebody else.
func (f *following) next(kind string) client.Event {
	f.d.b.Helper()
	var found *client.Event
	f.d.until("hears of a "+kind, func() bool {
		for {
			list, after, err := f.d.Events(context.Background(), client.Query{After: f.after, Limit: 1})
			if err != nil {
				f.d.b.Fatal(err)
			}
			if f.after = after; len(list) == 0 {
				return false
			}
			if list[0].Kind == kind && !list[0].Outgoing {
				found = &list[0]
				return true
			}
		}
	})
	return *found
}
