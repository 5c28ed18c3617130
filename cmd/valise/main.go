// SPDX-License-Identifier: Apache-2.0

// Command valise is what an official uses: it enrolls a device whose keys are in a
// smartcard, and writes and receives messages and files.
//
//	valise enroll INVITATION --gateway gw.interieur.example:4433
//	valise unlock
//	valise send bob@interieur.example "see you at nine"
//	valise send bob@interieur.example --file report.pdf
//	valise labels bob@interieur.example
//	valise send bob@interieur.example "burn this" --label "SECRET//EYES ONLY"
//	valise receive --follow
//	valise chat bob@interieur.example
//	valise verify bob@interieur.example
//	valise lock
//
// Security officers, administrators and auditors of an authority use "valise officer",
// with a key in slot 9c that asks for its PIN each time; "valise officer --help" lists
// what they do, and officer.go shows how it begins.
//
// An agent in the background owns card, vault and connection; the other commands start
// it when it is needed and talk to it over a private socket. It stays until the
// machine stops or "valise agent --stop"; it locks when the card is pulled, when nothing
// has been asked of it for an hour, and on "valise lock". A "receive --follow" or a chat
// that runs goes on asking: end it before you leave, or take the card with you.
//
// Everything is kept in one home directory: --home, or VALISE_HOME, or valise in the
// user's state directory. Commands print for people; with --json they print one JSON
// object a line. Exit status: 0 done, 1 not done, 2 wrong usage; "attest show",
// "audit" and "policy" say in their help what theirs are.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"

	"valise/hsm"
	"valise/packaging"
)

type cli struct {
	Home string `env:"VALISE_HOME" placeholder:"DIR" help:"Where this device's state is kept. Default: valise in the user's state directory."`

	Enroll        EnrollCmd        `cmd:"" help:"Enroll this device: keys in the card, a certificate from the authority."`
	Unlock        UnlockCmd        `cmd:"" help:"Unlock with the card's PIN and connect."`
	Lock          LockCmd          `cmd:"" help:"Lock: forget keys, disconnect, make the card ask for its PIN again."`
	Status        StatusCmd        `cmd:"" help:"Show this device, its card, its certificate and its connection."`
	Send          SendCmd          `cmd:"" help:"Send a text or a file and wait until the gateway has it."`
	Withdraw      WithdrawCmd      `cmd:"" help:"Take back what waits on this device and was not sent."`
	Receive       ReceiveCmd       `cmd:"" help:"Print what came, and fetch files."`
	Chat          ChatCmd          `cmd:"" help:"Write and read line by line."`
	Contacts      ContactsCmd      `cmd:"" help:"List who can be written to."`
	Labels        LabelsCmd        `cmd:"" help:"List labels, and to whom they may go."`
	Conversations ConversationsCmd `cmd:"" help:"List conversations and who is in them."`
	Confirm       ConfirmCmd       `cmd:"" help:"Say that the people in a conversation are the right ones, after the gateway was restored."`
	Verify        VerifyCmd        `cmd:"" help:"Show the safety number to compare with somebody by voice."`
	Add           AddCmd           `cmd:"" help:"Add people, or their new devices, to a conversation."`
	Remove        RemoveCmd        `cmd:"" help:"Remove people from a conversation."`
	Attest        AttestCmd        `cmd:"" help:"Look at a card's evidence."`
	Officer       OfficerCmd       `cmd:"" help:"What a security officer, an administrator or an auditor does."`
	Audit         AuditCmd         `cmd:"" help:"Check an authority's public record from outside."`
	Policy        PolicyCmd        `cmd:"" help:"Look at labels and clearances under security policies."`
	Agent         AgentCmd         `cmd:"" help:"Run the agent in the foreground, or stop it."`
}

// output is part of every command.
type output struct {
	JSON jsonFlag `name:"json" help:"Print JSON, one object a line."`
}

type jsonFlag bool

// AfterApply is called by kong where the flag is given.
func (j jsonFlag) AfterApply(e *env) error {
	e.json = bool(j)
	return nil
}

// env is what every command gets.
type env struct {
	home string
	json bool
	out  *os.File
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not end by itself
	if err := harden(); err != nil {
		os.Exit(complain(err))
	}
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	e := &env{out: os.Stdout}
	if slices.Equal(args, []string{"--version"}) { // as a flag it would hide that of policy sign
		_, err := fmt.Fprintln(e.out, packaging.Version())
		return complain(err)
	}
	var c cli
	parser, err := kong.New(&c, kong.Name("valise"), kong.Bind(e),
		kong.Description("Messages and files that only the two ends can open, with keys that never leave a smartcard."),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(e.out, (*io.Writer)(nil)))
	if err != nil {
		return complain(err)
	}
	k, err := parser.Parse(args)
	if err != nil {
		complain(err)
		return 2
	}
	if e.home, err = homeDir(c.Home); err != nil {
		return complain(err)
	}
	err = k.Run()
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		err = errors.New("interrupted")
	}
	return complain(err)
}

// complain prints an error with its remedy, and says how the process ends.
func complain(err error) int {
	if err == nil {
		return 0
	}
	warn("%v", err)
	if hint := hsm.Hint(err); hint != "" {
		warn("hint: %s", hint)
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return 1
}

// hintError is an error with a remedy.
type hintError struct{ text, hint, code string }

func (e *hintError) Error() string     { return e.text }
func (e *hintError) Hint() string      { return e.hint }
func (e *hintError) ErrorCode() string { return e.code }

// Codes of errors that cross the agent's socket and that commands act on.
const codeLocked = "locked"

func errLocked(why string) error {
	text := "the agent is locked"
	if why != "" {
		text += ": " + why
	}
	return &hintError{text, "run: valise unlock", codeLocked}
}
