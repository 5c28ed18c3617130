// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"valise/identity"
	"valise/policy/bundle"
	"valise/statement"
)

// PolicySignCmd is `valise policy sign BUNDLE --out FILE`: the first officer signs a
// folder, the second one the file that came of it. With the second signature the
// record puts the bundle into force. Lay the first one's file down at every gateway
// before that: it waits there, and each has it when its time comes.
type PolicySignCmd struct {
	signFlags
	bundleFile
	Out     string `type:"path" placeholder:"FILE" help:"The signed bundle; for one that is signed already, that file itself by default."`
	Version uint32 `placeholder:"N" help:"The version to sign; by default the one after that in force."`
}

// Run checks everything that a gateway will check, shows what is signed, signs, keeps
// the file, and hands the signature in.
func (cmd *PolicySignCmd) Run(ctx context.Context, e *env) error {
	signed, err := cmd.read()
	if err != nil {
		return err
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		body, err := cmd.body(ctx, b, signed)
		if err != nil {
			return err
		}
		compiled, err := bundle.Compile(signed.Contents, time.Now())
		if err != nil {
			return &hintError{text: err.Error(), hint: "see: valise policy test " + cmd.Bundle}
		}
		for _, f := range signed.Contents.Files {
			b.say("  %s, %d bytes", f.Name, len(f.Data))
		}
		b.facts("rules", strings.Join(compiled.Rules(), " "))
		raw, err := cmd.confirmAndSign(ctx, b, body)
		if err != nil {
			return err
		}
		signed.Statements = append(signed.Statements, raw)
		data, err := signed.Marshal()
		if err != nil {
			return err
		}
		if err := replaceFile(cmd.Out, data, 0o644); err != nil {
			return err
		}
		if _, err := cmd.handIn(ctx, b, body, raw); err != nil {
			warn("what you signed is in %s, and is not recorded", cmd.Out)
			return err
		}
		if len(signed.Statements) == 1 {
			b.say("give %s to the gateways' operators, and then to another officer: valise policy sign %s", cmd.Out, cmd.Out)
		}
		return nil
	})
}

// read takes a folder, or a file that another officer signed.
func (cmd *PolicySignCmd) read() (*bundle.Signed, error) {
	info, err := os.Stat(cmd.Bundle)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if cmd.Out == "" {
			return nil, &hintError{text: "there is no file to write the signed bundle to", hint: "add --out FILE"}
		}
		contents, err := bundle.Pack(os.DirFS(cmd.Bundle), max(cmd.Version, 1))
		return &bundle.Signed{Contents: contents}, err
	}
	data, err := readUpTo(cmd.Bundle, bundle.MaxSize)
	if err != nil {
		return nil, err
	}
	if cmd.Out == "" {
		cmd.Out = cmd.Bundle
	}
	signed, err := bundle.ParseSigned(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Bundle, err)
	}
	if cmd.Version != 0 && cmd.Version != signed.Contents.Version {
		return nil, fmt.Errorf("%s is version %d already", cmd.Bundle, signed.Contents.Version)
	}
	return signed, nil
}

// body is what this officer signs: of a folder, the version after the one in force;
// of a file, what the officer before said, word for word.
func (cmd *PolicySignCmd) body(ctx context.Context, b *bureau, signed *bundle.Signed) (*statement.Bundle, error) {
	if len(signed.Statements) > 0 {
		return b.agreed(signed)
	}
	r, err := b.desk.Rules(ctx)
	if err != nil {
		return nil, err
	}
	if cmd.Version == 0 {
		signed.Contents.Version = uint32(r.BundleVersion) + 1
	}
	if int(signed.Contents.Version) <= r.BundleVersion {
		return nil, &hintError{text: fmt.Sprintf("version %d is in force", r.BundleVersion), hint: "leave --version out, or give a higher one"}
	}
	body := &statement.Bundle{Change: statement.NewID(), Version: int(signed.Contents.Version)}
	if body.Previous, err = digest(r.BundlePrevious); err != nil {
		return nil, err
	}
	body.Hash, err = signed.Contents.Hash()
	return body, err
}

// agreed returns what the statements of a file say, if all say the same about it and
// none of them is this officer's.
func (b *bureau) agreed(signed *bundle.Signed) (*statement.Bundle, error) {
	hash, err := signed.Contents.Hash()
	if err != nil {
		return nil, err
	}
	me, err := b.me()
	if err != nil {
		return nil, err
	}
	var body *statement.Bundle
	for _, raw := range signed.Statements {
		s, err := statement.Parse(raw)
		if err != nil {
			return nil, err
		}
		one, ok := s.Body.(*statement.Bundle)
		if !ok || one.Hash != hash || one.Version != int(signed.Contents.Version) {
			return nil, errors.New("the file holds a statement about something else: sign nothing, and ask who made it")
		}
		if body != nil && statement.BodyDigest(body) != statement.BodyDigest(one) {
			return nil, errors.New("the statements in the file do not say the same: sign nothing, and ask who made it")
		}
		id, err := leafKey(s.Chain[0])
		if err != nil {
			return nil, err
		}
		if id == me {
			return nil, &hintError{text: "you have signed this file", hint: "it takes another officer"}
		}
		b.say("signed by %s, %s: the desk verifies it", signerOf(s.Chain[0]), moment(s.Head.Time))
		body = one
	}
	return body, nil
}

// signerOf names an officer as the certificate has it; nothing rests on it.
func signerOf(der []byte) string {
	id, err := leafKey(der)
	if err != nil {
		return "?"
	}
	return "the key " + identity.DeviceID(id).String()[:16] + "…"
}
