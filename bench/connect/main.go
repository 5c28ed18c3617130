// SPDX-License-Identifier: Apache-2.0

// Command connect measures what many idle devices cost a gateway, and how it takes
// them in again when all were lost at once:
//
//	go run ./bench/connect              # 20,000 devices, some minutes
//	go run ./bench/connect -devices 500
//
// The gateway is the daemon as it is shipped, with its key in a software token, on
// the same machine as the devices, which take most of the processors. Devices have a
// key in software and a certificate of a test authority each; four processes of them
// share four UDP sockets. They say Hello and Resume, are welcomed, and wait for mail.
// Then the gateway is killed (SIGKILL) and started again, while every device has
// noticed at the same moment, which is worse than what real ones do: those notice
// when they next ask for a sign of life. Each tries again with the pauses of the real
// client, until it is welcomed. Nobody may be left out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"valise/bench/daemons"
	"valise/bench/lean"
	"valise/internal/figure"
	"valise/internal/stage"
)

const (
	domain = "interieur.example"
	limit  = 9 * time.Minute // ends the program whatever happens
	parts  = 4               // processes of devices
)

func main() {
	var err error
	if len(os.Args) == 3 && os.Args[1] == "load" {
		err = loadMain(os.Args[2])
	} else {
		devices := flag.Int("devices", 20_000, "how many devices")
		idle := flag.Duration("idle", 45*time.Second, "for how long their idling is watched")
		flag.Parse()
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, *devices, *idle)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "connect:", err)
		os.Exit(1)
	}
}

// A bench is one gateway and its devices.
type bench struct {
	dir, bin, self string
	address, admin string
	token          *stage.Token
	daemon         *daemons.Process
	loads          []*loader
}

type loader struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end io.Closer
}

func run(ctx context.Context, devices int, idle time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("/var/tmp", "vc")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, bin: filepath.Join(dir, "bin")}
	defer b.stop()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	empty, err := b.daemon.RSS()
	if err != nil {
		return err
	}
	if err := b.load(devices); err != nil {
		return err
	}
	first, err := b.all(ctx, "connect")
	if err != nil {
		return err
	}
	fmt.Printf("%d devices connected in %.1f s\n", first.Count, first.Seconds)
	if err := b.idle(ctx, devices, idle, empty); err != nil {
		return err
	}
	return b.lose(ctx, devices)
}

// idle measures what connections cost that nobody uses.
func (b *bench) idle(ctx context.Context, devices int, length time.Duration, empty int64) error {
	before, err := daemons.CPU(b.daemon)
	if err != nil {
		return err
	}
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err1 := daemons.CPU(b.daemon)
	full, err2 := b.daemon.RSS()
	return errors.Join(err1, err2,
		figure.Print(os.Stdout, "connect_idle_connection", float64(full-empty)/1000/float64(devices), "kB"),
		figure.Print(os.Stdout, "connect_idle_processor", 100*(after-before).Seconds()/length.Seconds(), "percent"))
}

// lose kills the gateway under all of them, and measures their return.
func (b *bench) lose(ctx context.Context, devices int) error {
	if err := syscall.Kill(b.daemon.Pid(), syscall.SIGKILL); err != nil {
		return err
	}
	b.daemon.Stop()
	answers := make(chan answer, 1)
	failed := make(chan error, 1)
	go func() {
		a, err := b.all(ctx, "lost")
		answers <- a
		failed <- err
	}()
	began := time.Now()
	if err := b.start(ctx); err != nil {
		return err
	}
	up := time.Since(began)
	back, err := <-answers, <-failed
	if err != nil {
		return err
	}
	cpu, err1 := daemons.CPU(b.daemon)
	peak, err2 := peakRSS(b.daemon.Pid())
	if back.Count != devices {
		return fmt.Errorf("%d of %d devices came back", back.Count, devices)
	}
	fmt.Printf("the gateway was up after %.1f s; all %d were back after %.1f s, the slowest at its attempt %d; %d attempts in all\n",
		up.Seconds(), back.Count, back.Seconds, back.Most, back.Attempts)
	return errors.Join(err1, err2,
		figure.Print(os.Stdout, "connect_all_back", back.Seconds, "s"),
		figure.Print(os.Stdout, "connect_half_back", back.Half, "s"),
		figure.Print(os.Stdout, "connect_return_rate", float64(devices)/back.Seconds, "devices/s"),
		figure.Print(os.Stdout, "connect_return_cpu", 1000*cpu.Seconds()/float64(devices), "ms"),
		figure.Print(os.Stdout, "connect_return_peak", float64(peak)/1e6, "MB"),
		figure.Print(os.Stdout, "connect_attempts_each", float64(back.Attempts)/float64(devices), "attempts"),
		figure.Print(os.Stdout, "connect_left_out", float64(devices-back.Count), "devices"))
}

// peakRSS is the most memory that a process ever had in RAM (proc(5): VmHWM).
func peakRSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok && err == nil {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.Join(err, errors.New("VmHWM is missing"))
}

// prepare builds the daemon, makes authority, token and certificate.
func (b *bench) prepare(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-o", b.bin+"/", "valise/cmd/valise-gatewayd").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	authority, err := lean.NewAuthority(domain)
	if err != nil {
		return err
	}
	s, err := stage.New(stage.Config{Bin: b.bin, Dir: b.dir})
	if err == nil {
		err = authority.Save(b.dir)
	}
	if err != nil {
		return err
	}
	if b.token, err = s.NewToken(ctx, "bench"); err != nil {
		return err
	}
	udp, err1 := daemons.FreePort()
	tcp, err2 := daemons.FreePort()
	b.address, b.admin = "127.0.0.1:"+strconv.Itoa(udp), "127.0.0.1:"+strconv.Itoa(tcp)
	err = errors.Join(err1, err2, os.WriteFile(b.config(), []byte(b.toml()), 0o600))
	if err != nil {
		return err
	}
	request, err := stage.Output(ctx, b.token.Env, b.program(), "csr", "--config", b.config(), "--algorithm", "P-256")
	if err != nil {
		return err
	}
	return authority.CertifyGateway(filepath.Join(b.dir, "gateway.pem"), "127.0.0.1", request)
}

func (b *bench) config() string  { return filepath.Join(b.dir, "gateway.toml") }
func (b *bench) program() string { return filepath.Join(b.bin, "valise-gatewayd") }

func (b *bench) toml() string {
	return fmt.Sprintf("listen = [%q]\nname = \"127.0.0.1\"\ndomain = %q\nroots = \"roots.pem\"\nkey = %q\npin_source = \"pin\"\n"+
		"certificate = \"gateway.pem\"\ndata = \"data\"\naudit = \"audit.jsonl\"\nadmin = %q\nlog_level = \"warn\"\n",
		b.address, domain, b.token.URI("tls"), b.admin)
}

func (b *bench) start(ctx context.Context) (err error) {
	if b.daemon, err = daemons.Start(filepath.Join(b.dir, "out"), syscall.SIGTERM, nil, b.token.Env, b.program(), "serve", "--config", b.config()); err != nil {
		return err
	}
	return b.daemon.Accepts(ctx, "tcp", b.admin)
}

// load starts the processes of devices; each makes its keys and certificates first.
func (b *bench) load(devices int) error {
	for i := range parts {
		own := devices * (i + 1) / parts
		own -= devices * i / parts
		text, err := json.Marshal(load{Dir: b.dir, Address: b.address, Index: i, Devices: own})
		if err != nil {
			return err
		}
		cmd := exec.Command(b.self, "load", string(text))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		b.loads = append(b.loads, &loader{cmd, json.NewEncoder(in), json.NewDecoder(out), in})
	}
	_, err := b.all(context.Background(), "make")
	return err
}

// all has every process do the same at the same time, and joins what they say.
func (b *bench) all(ctx context.Context, do string) (sum answer, err error) {
	defer context.AfterFunc(ctx, b.stopLoads)()
	for _, l := range b.loads {
		if err := l.in.Encode(do); err != nil {
			return sum, err
		}
	}
	for _, l := range b.loads {
		var a answer
		if err := l.out.Decode(&a); err != nil {
			return sum, fmt.Errorf("%s: a process of devices has ended: %w", do, err)
		}
		if a.Error != "" {
			err = errors.Join(err, errors.New(a.Error))
		}
		sum.Count += a.Count
		sum.Attempts += a.Attempts
		sum.Most = max(sum.Most, a.Most)
		sum.Seconds = max(sum.Seconds, a.Seconds)
		sum.Half = max(sum.Half, a.Half)
	}
	return sum, err
}

func (b *bench) stopLoads() {
	for _, l := range b.loads {
		_ = l.end.Close()
		_ = l.cmd.Process.Kill()
	}
}

func (b *bench) stop() {
	b.stopLoads()
	for _, l := range b.loads {
		_ = l.cmd.Wait()
	}
	if b.daemon != nil {
		b.daemon.Stop()
	}
}
