// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"valise/client"
	"valise/internal/figure"
	"valise/internal/wan"
)

// gib is the size of BenchmarkFile's file.
func gib() int64 {
	n, err := strconv.ParseInt(os.Getenv("VALISE_FILES_GIB"), 10, 64)
	if err != nil || n < 1 || n > 10 {
		return 1
	}
	return n
}

// source makes a file of holes: reading it costs no disk, and its ciphertext is as any other.
func source(b *testing.B, dir string, size int64) string {
	b.Helper()
	path := filepath.Join(dir, fmt.Sprint("source-", size))
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return path
}

func BenchmarkFile(b *testing.B) {
	w := newWorld(b)
	alice, bob, conv := w.pair()
	size := gib() << 30
	path := source(b, w.dir, size)
	ctx := context.Background()
	for b.Loop() {
		copied := rate(size, func() { copyTwice(b, w.dir, path) })
		carried := rate(size, func() { carryTwice(w, path) })
		events := &following{d: bob}
		before := resident(b)
		began := time.Now()
		id, err := alice.SendFile(ctx, client.Draft{Conversation: conv}, path, nil)
		if err != nil {
			b.Fatal(err)
		}
		measured := time.Since(began)
		alice.until("has brought it", func() bool {
			o, err := alice.Outcome(ctx, id)
			return err == nil && o.State == client.OutcomeSent
		})
		up := time.Since(began) - measured
		ev := events.next(client.EventFile)
		began = time.Now()
		got, err := bob.Fetch(ctx, ev.Cursor, w.dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		down := time.Since(began)
		most := peak(b)
		if info, err := os.Stat(got); err != nil || info.Size() != size {
			b.Fatal("the file has another size", err)
		}
		if err := os.Remove(got); err != nil {
			b.Fatal(err)
		}
		mb := float64(size) / 1e6
		figure.Print(os.Stdout, "files_measure", mb/measured.Seconds(), "MB/s")
		figure.Print(os.Stdout, "files_upload", mb/up.Seconds(), "MB/s")
		figure.Print(os.Stdout, "files_download", mb/down.Seconds(), "MB/s")
		figure.Print(os.Stdout, "files_copy_ratio", mb/(up+down).Seconds()/copied, "ratio")
		figure.Print(os.Stdout, "files_quic_ratio", mb/(up+down).Seconds()/carried, "ratio")
		figure.Print(os.Stdout, "files_memory", float64(most-before)/(1<<20), "MiB")
	}
}

// rate is how many MB a second something makes of so many bytes.
func rate(size int64, f func()) float64 {
	began := time.Now()
	f()
	return float64(size) / 1e6 / time.Since(began).Seconds()
}

// copyTwice writes the file to disk and syncs it, and once more from there.
func copyTwice(b *testing.B, dir, path string) {
	b.Helper()
	for _, name := range []string{"first", "second"} {
		to := filepath.Join(dir, name)
		in, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		out, err := os.Create(to)
		if err != nil {
			b.Fatal(err)
		}
		// Reader and writer alone: the kernel copying by itself is not what is compared.
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 64<<10)); err != nil {
			b.Fatal(err)
		}
		if err := out.Sync(); err != nil {
			b.Fatal(err)
		}
		_, _ = in.Close(), out.Close()
		defer os.Remove(to)
		path = to
	}
}

// carryTwice carries the file over a bare QUIC connection, to nowhere, one after another.
func carryTwice(w *world, path string) {
	b := w.b
	b.Helper()
	ctx := context.Background()
	config := &tls.Config{Certificates: []tls.Certificate{*w.paper.Server("127.0.0.1")}, NextProtos: []string{"bare"}}
	l, err := quic.ListenAddr("127.0.0.1:0", config, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 2)
	go func() {
		c, err := l.Accept(ctx)
		for range 2 {
			var s *quic.Stream
			if err == nil {
				s, err = c.AcceptStream(ctx)
			}
			if err == nil {
				_, err = io.Copy(io.Discard, s)
			}
			done <- err
		}
	}()
	c, err := quic.DialAddr(ctx, l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: config.NextProtos}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.CloseWithError(0, "")
	for range 2 {
		in, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		s, err := c.OpenStreamSync(ctx)
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{in}, make([]byte, 64<<10))
		}
		if err == nil {
			err = s.Close()
		}
		if err == nil {
			err = <-done
		}
		if err != nil {
			b.Fatal(err)
		}
		_ = in.Close()
	}
}

// resident is the process's resident set, in bytes; from here on peak is the largest.
func resident(b *testing.B) int64 {
	b.Helper()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	return status(b, "VmRSS:")
}

func peak(b *testing.B) int64 { return status(b, "VmHWM:") }

func status(b *testing.B, name string) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var kb int64
		if n, _ := fmt.Sscanf(lines.Text(), name+" %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	b.Fatalf("no %s in the process's status", name)
	return 0
}

func BenchmarkMessages(b *testing.B) {
	for _, line := range []struct {
		name    string
		weather wan.Weather
		size    int64 // of each file
	}{
		{"loopback", wan.Weather{}, 512 << 20},
		{"thin", wan.Weather{Delay: 10 * time.Millisecond, Rate: 1_250_000, Queue: 256 << 10}, 16 << 20},
	} {
		b.Run(line.name, func(b *testing.B) {
			w := newWorld(b)
			inside, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			r, err := wan.New(wan.Config{Inside: inside, To: netip.MustParseAddrPort(w.gateway), Seed: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			if w.through = inside.LocalAddr().String(); line.weather == (wan.Weather{}) {
				w.through = ""
			}
			alice, bob, conv := w.pair()
			for b.Loop() {
				r.Set(line.weather)
				free := latencies(alice, bob, conv)
				during := beside(w, alice, bob, conv, line.size)
				for _, f := range []struct {
					name string
					list []time.Duration
				}{{"alone", free}, {"beside", during}} {
					figure.Print(os.Stdout, "files_message_"+line.name+"_"+f.name+"_p50", percentile(f.list, 50), "ms")
					figure.Print(os.Stdout, "files_message_"+line.name+"_"+f.name+"_p99", percentile(f.list, 99), "ms")
				}
			}
		})
	}
}

const messages = 200

// latencies sends messages one after another, and measures each until the other device has
// it on its disk.
func latencies(alice, bob *device, conv client.ConversationID) (list []time.Duration) {
	_, after, err := bob.Events(context.Background(), client.Query{Latest: true})
	if err != nil {
		bob.b.Fatal(err)
	}
	events := &following{bob, after}
	for range messages {
		began := time.Now()
		if _, err := alice.Send(context.Background(), client.Draft{Conversation: conv, Text: "how long does it take?"}); err != nil {
			alice.b.Fatal(err)
		}
		events.next(client.EventMessage)
		list = append(list, time.Since(began))
	}
	return list
}

// beside is latencies while alice brings files and bob fetches one.
func beside(w *world, alice, bob *device, conv client.ConversationID, size int64) []time.Duration {
	b := w.b
	path := source(b, w.dir, size)
	_, after, err := bob.Events(context.Background(), client.Query{Latest: true})
	if err != nil {
		b.Fatal(err)
	}
	events := &following{bob, after}
	ctx, cancel := context.WithCancel(context.Background())
	id, err := alice.SendFile(ctx, client.Draft{Conversation: conv}, path, nil)
	if err != nil {
		b.Fatal(err)
	}
	alice.until("has brought the file", func() bool {
		o, err := alice.Outcome(ctx, id)
		return err == nil && o.State == client.OutcomeSent
	})
	ev := events.next(client.EventFile)
	// One at a time goes up; they wait for each other.
	for range 4 {
		if _, err := alice.SendFile(ctx, client.Draft{Conversation: conv}, path, nil); err != nil {
			b.Fatal(err)
		}
	}
	ended := make(chan struct{})
	var began sync.Once
	running := make(chan struct{})
	go func() {
		defer close(ended)
		dir, _ := os.MkdirTemp(w.dir, "fetched")
		_, _ = bob.Fetch(ctx, ev.Cursor, dir, func(uint64, uint64) { began.Do(func() { close(running) }) })
	}()
	<-running
	list := latencies(alice, bob, conv)
	cancel()
	<-ended
	return list
}

func percentile(list []time.Duration, p int) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return float64(sorted[min(len(sorted)-1, len(sorted)*p/100)].Microseconds()) / 1000
}
