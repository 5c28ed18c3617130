// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/alecthomas/kong"

	"valise/internal/testcard"
	"valise/internal/testcard/reader"
)

// The kernel ends the reader with the thread that started it, so the main
// goroutine stays on the main thread.
func init() { runtime.LockOSThread() }

type commands struct {
	New          newCmd     `cmd:"" help:"Make a virtual card."`
	Root         rootCmd    `cmd:"" help:"Print the attestation root certificate."`
	Reader       readerCmd  `cmd:"" help:"Run a private reader with up to two virtual cards."`
	Insert       insertCmd  `cmd:"" help:"Insert a card into a running reader."`
	Eject        ejectCmd   `cmd:"" help:"Pull a card out of a running reader."`
	RestartPcscd restartCmd `cmd:"" name:"restart-pcscd" help:"Restart pcscd of a running reader."`
	List         listCmd    `cmd:"" help:"List the cards of a running reader."`
	Inside       insideCmd  `cmd:"" hidden:"" help:"Inner half of reader; not for people."`
}

func main() {
	var cli commands
	k := kong.Parse(&cli,
		kong.Name("valise-testcard"),
		kong.Description("Virtual PIV smartcards for tests and the demo. Not hardware, not secure."))
	if err := k.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "valise-testcard: %v\n", err)
		if hint := hint(err); hint != "" {
			fmt.Fprintf(os.Stderr, "valise-testcard: hint: %s\n", hint)
		}
		os.Exit(reader.ExitCode(err))
	}
}

func hint(err error) string {
	if errors.Is(err, reader.ErrNamespaces) {
		return "run as root with CAP_SYS_ADMIN, or allow unprivileged user namespaces " +
			"(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; " +
			"docker: --security-opt seccomp=unconfined --cap-add SYS_ADMIN)"
	}
	return ""
}

type newCmd struct {
	State      string `required:"" type:"path" help:"State file to make."`
	Root       string `required:"" type:"path" help:"File of the attestation root; made if it does not exist."`
	Serial     uint32 `help:"Serial number (default: random)."`
	Firmware   string `default:"5.4.3" help:"Firmware version."`
	PIN        string `help:"PIN (default: the factory's)."`
	PUK        string `help:"PUK (default: the factory's)."`
	FormFactor uint8  `default:"1" help:"Form factor byte."`
	Untouched  bool   `help:"Nobody ever touches this card."`
	Bio        bool   `help:"A card with a fingerprint reader; the virtual finger always matches."`
}

func (c *newCmd) Run() error {
	firmware, err := testcard.ParseVersion(c.Firmware)
	if err != nil {
		return err
	}
	root, err := testcard.OpenRoot(c.Root)
	if err != nil {
		return err
	}
	card, err := testcard.Create(c.State, testcard.Config{
		Serial: c.Serial, Firmware: firmware, FormFactor: c.FormFactor, PIN: c.PIN, PUK: c.PUK,
		Untouched: c.Untouched, Bio: c.Bio, Root: root,
	})
	if err != nil {
		return err
	}
	defer card.Close()
	fmt.Printf("virtual card %d, firmware %v, in %s\n", card.Serial(), firmware, c.State)
	return nil
}

type rootCmd struct {
	Root string `required:"" type:"path" help:"File of the attestation root; made if it does not exist."`
	PEM  bool   `name:"pem" help:"Print PEM (the only format)."`
}

func (c *rootCmd) Run() error {
	root, err := testcard.OpenRoot(c.Root)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(root.PEM())
	return err
}

type readerCmd struct {
	Dir           string   `required:"" type:"path" help:"Folder of the reader; its path must be short."`
	OutliveParent bool     `help:"Keep running when the starting process ends."`
	Rm            bool     `help:"Remove the folder at the end."`
	Cards         []string `arg:"" optional:"" type:"path" name:"card" help:"State files of cards to insert."`
}

func (c *readerCmd) Run() error {
	cfg := reader.Config{Dir: c.Dir, Cards: c.Cards, OutliveParent: c.OutliveParent, Remove: c.Rm}
	if err := cfg.Prepare(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return reader.Run(ctx, cfg)
}

type insideCmd struct {
	Dir   string   `required:""`
	Cards []string `arg:"" optional:""`
}

func (c *insideCmd) Run() error {
	// The terminal's interrupt reaches both halves; the outer one decides.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return reader.Inside(ctx, reader.Config{Dir: c.Dir, Cards: c.Cards}, os.Stdout)
}

type insertCmd struct {
	Dir  string `required:"" type:"path" help:"Folder of the reader."`
	Card string `arg:"" help:"Serial number, or state file of a card that is new here."`
}

func (c *insertCmd) Run() error {
	serial, err := strconv.ParseUint(c.Card, 10, 32)
	if err != nil {
		return control(c.Dir, reader.Request{Do: "insert", File: c.Card})
	}
	return control(c.Dir, reader.Request{Do: "insert", Serial: uint32(serial)})
}

type ejectCmd struct {
	Dir    string `required:"" type:"path" help:"Folder of the reader."`
	Serial uint32 `arg:"" help:"Serial number."`
}

func (c *ejectCmd) Run() error {
	return control(c.Dir, reader.Request{Do: "eject", Serial: c.Serial})
}

type restartCmd struct {
	Dir string `required:"" type:"path" help:"Folder of the reader."`
}

func (c *restartCmd) Run() error {
	return control(c.Dir, reader.Request{Do: "restart-pcscd"})
}

type listCmd struct {
	Dir string `required:"" type:"path" help:"Folder of the reader."`
}

func (c *listCmd) Run() error {
	return control(c.Dir, reader.Request{Do: "list"})
}

// control sends one command and prints the cards as they are after it.
func control(dir string, req reader.Request) error {
	cards, err := reader.Do(dir, req)
	for _, card := range cards {
		where := "ejected"
		if card.Inserted {
			where = card.Reader
		}
		fmt.Printf("virtual card %d: %s (%s)\n", card.Serial, where, card.File)
	}
	return err
}
