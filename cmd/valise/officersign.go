// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"valise/enroll/desk/call"
	"valise/internal/keys"
	"valise/statement"
)

const (
	// statementLife is how long a statement may wait, for its way to the desk and
	// for a second officer.
	statementLife = 7 * 24 * time.Hour

	// stopLife is the same for what stops something: gateways may have to obey it
	// while the authority is down.
	stopLife = statement.MaxLife
)

// signFlags is part of every command that signs.
type signFlags struct {
	officerFlags
	Yes          bool   `short:"y" help:"Do not ask whether to sign what is shown."`
	StatementOut string `type:"path" placeholder:"FILE" help:"Write what was signed to a file too; a suspension can be carried to the gateways that way."`
}

// signIn opens a session if there is none.
func (b *bureau) signIn(ctx context.Context) error {
	if b.desk.Opened() {
		return nil
	}
	err := b.desk.Open(ctx, func(s *statement.Session) ([]byte, error) {
		fmt.Fprintf(os.Stderr, "opening the desk of %s\n", plain(s.Server))
		return b.sign(ctx, s, statement.SessionLife)
	})
	if err != nil {
		return err
	}
	if err := b.keepSession(); err != nil {
		warn("the session is not kept: %v", err)
	}
	return nil
}

// sign has the card sign. What is signed was shown before.
func (b *bureau) sign(ctx context.Context, body statement.Body, life time.Duration) ([]byte, error) {
	key, err := keys.OpenKey(ctx, b.Card, b.cardPIN())
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	raw, err := statement.Sign(ctx, key, b.chain, statement.Head{
		Authority: b.root, ID: statement.NewID(), Time: now, Expires: now.Add(life),
	}, body)
	if closing := key.Close(); err == nil {
		err = closing
	}
	return raw, err
}

// decide shows what is about to be signed, asks, signs, and hands it in.
func (f *signFlags) decide(ctx context.Context, b *bureau, body statement.Body) (call.Outcome, error) {
	raw, err := f.confirmAndSign(ctx, b, body)
	if err != nil {
		return call.Outcome{}, err
	}
	return f.handIn(ctx, b, body, raw)
}

// confirmAndSign shows, asks and signs, and writes the file.
func (f *signFlags) confirmAndSign(ctx context.Context, b *bureau, body statement.Body) ([]byte, error) {
	if _, err := statement.MarshalBody(body); err != nil {
		return nil, err
	}
	b.show(body)
	if err := f.confirm("sign this?"); err != nil {
		return nil, err
	}
	life := statementLife
	switch body.Kind() {
	case statement.KindSuspension, statement.KindRevocation:
		life = stopLife
	}
	raw, err := b.sign(ctx, body, life)
	if err != nil {
		return nil, err
	}
	if f.StatementOut != "" {
		if err := replaceFile(f.StatementOut, raw, 0o600); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// show prints a body's words and its digest.
func (b *bureau) show(body statement.Body) {
	b.say("you are about to sign:")
	for _, text := range body.Words() {
		b.say("    %s", text)
	}
	b.say("digest: %x", statement.BodyDigest(body))
}

// handIn sends a statement that was signed, and says what became of it.
func (f *signFlags) handIn(ctx context.Context, b *bureau, body statement.Body, raw []byte) (call.Outcome, error) {
	out, err := b.desk.Submit(ctx, raw)
	if err != nil {
		if call.Unreachable(err) && f.StatementOut != "" {
			warn("what you signed is in %s", f.StatementOut)
		}
		return out, err
	}
	return out, b.tell(body, &out)
}

// OfficerSubmitCmd is `valise officer submit`.
type OfficerSubmitCmd struct {
	officerFlags
	File string `arg:"" type:"existingfile" help:"The statement, from --statement-out."`
}

// Run shows what the file says and hands it in. Nothing is signed; the desk takes only
// what this officer signed.
func (cmd *OfficerSubmitCmd) Run(ctx context.Context, e *env) error {
	raw, err := readUpTo(cmd.File, statement.MaxLargeSize)
	if err != nil {
		return err
	}
	s, err := statement.Parse(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.File, err)
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		e.say("signed on %s:", moment(s.Head.Time))
		for _, text := range s.Body.Words() {
			e.say("    %s", text)
		}
		out, err := b.desk.Submit(ctx, raw)
		if err != nil {
			return err
		}
		return b.tell(s.Body, &out)
	})
}

// tell says what became of a statement.
func (b *bureau) tell(body statement.Body, out *call.Outcome) error {
	digest := fmt.Sprintf("%x", statement.BodyDigest(body))
	if b.json {
		return b.print(map[string]any{"kind": body.Kind(), "digest": digest, "outcome": out})
	}
	if out.State == call.OutcomeWaiting {
		b.say("signed: %d of %s; waits for another officer", out.Have, plural(out.Need, "approval"))
		if body.Kind() != statement.KindApproval {
			b.say("they run: valise officer approve %s", digest)
		}
		return nil
	}
	b.say("signed and recorded: %d of %s, leaf %d", out.Have, plural(out.Need, "approval"), out.Index)
	return nil
}

// confirm asks a person. Whoever is not asked has said --yes.
func (f *signFlags) confirm(question string) error {
	if f.Yes {
		return nil
	}
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	answer, err := readLine(os.Stdin)
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		fmt.Fprintln(os.Stderr)
		return &hintError{text: "nobody confirmed; nothing was signed", hint: "run it at a terminal, or say --yes"}
	}
	return errors.New("nothing was signed")
}

// readLine takes one line and nothing of the next one, which another question may
// want.
func readLine(r io.Reader) (string, error) {
	var text []byte
	for one := make([]byte, 1); len(text) < 100; {
		if _, err := io.ReadFull(r, one); err != nil {
			return string(text), err
		}
		if one[0] == '\n' {
			break
		}
		text = append(text, one[0])
	}
	return string(text), nil
}
