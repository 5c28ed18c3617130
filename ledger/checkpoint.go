// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// ErrCheckpoint is wrapped by every error of a checkpoint that is malformed or
// does not bear the signature that it should.
var ErrCheckpoint = errors.New("ledger: checkpoint refused")

// Origin is the name under which the authority of a domain keeps its record.
func Origin(domain string) string { return domain + "/valise" }

// VerifierKey returns the verifier key of a log (C2SP signed-note, Section
// "Verifier keys"): what programs that follow the record are configured with.
func VerifierKey(origin string, pub ed25519.PublicKey) string {
	key, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		return "" // not a key of Ed25519
	}
	return key
}

// Verifier returns what checks the checkpoints of a log under a key.
func Verifier(origin string, pub ed25519.PublicKey) (note.Verifier, error) {
	if !validOrigin(origin) {
		return nil, fmt.Errorf("ledger: %q cannot be the name of a log", origin)
	}
	v, err := note.NewVerifier(VerifierKey(origin, pub))
	if err != nil {
		return nil, fmt.Errorf("ledger: key of the log %q: %w", origin, err)
	}
	return v, nil
}

// validOrigin refuses what cannot stand in a signed note's first line and in a
// key name.
func validOrigin(origin string) bool {
	return origin != "" && len(origin) <= maxOrigin && utf8.ValidString(origin) &&
		!strings.ContainsFunc(origin, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+' })
}

// checkpointText is the body of a checkpoint (C2SP tlog-checkpoint, Section
// "Note text"): origin, size and root hash, a line each.
func checkpointText(origin string, h Head) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, h.N, h.Hash)
}

// SignCheckpoint makes the log's statement about its tree: a signed note (C2SP
// signed-note) under an Ed25519 key, that must be in hardware. Whoever signs
// must be certain that the tree extends every one that was ever signed.
func SignCheckpoint(ctx context.Context, origin string, h Head, signer crypto.Signer) ([]byte, error) {
	pub, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("ledger: checkpoints are signed with Ed25519, this key is %T", signer.Public())
	}
	v, err := Verifier(origin, pub)
	if err != nil {
		return nil, err
	}
	if h.N < 0 || h.N > MaxSize {
		return nil, fmt.Errorf("ledger: checkpoint of a tree of %d leaves", h.N)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	text, err := note.Sign(&note.Note{Text: checkpointText(origin, h)}, noteSigner{v, signer})
	if err != nil {
		return nil, fmt.Errorf("ledger: signing the checkpoint of %d leaves: %w", h.N, err)
	}
	// A token that computed wrong must not publish what nobody can verify.
	if _, err := OpenCheckpoint(text, v); err != nil {
		return nil, fmt.Errorf("ledger: the signature over the checkpoint of %d leaves does not verify: %w", h.N, err)
	}
	return text, nil
}

// noteSigner makes a note.Signer of a key.
type noteSigner struct {
	note.Verifier
	key crypto.Signer
}

func (s noteSigner) Sign(msg []byte) ([]byte, error) {
	return s.key.Sign(rand.Reader, msg, crypto.Hash(0))
}

// OpenCheckpoint reads a checkpoint and returns the tree that it names. At
// least one of the verifiers must have signed it, and all of them must be of
// the log that it names.
func OpenCheckpoint(text []byte, verifiers ...note.Verifier) (Head, error) {
	origin, h, err := ParseCheckpoint(text)
	if err != nil {
		return Head{}, err
	}
	for _, v := range verifiers {
		if v.Name() != origin {
			return Head{}, fmt.Errorf("%w: it is of the log %q, not of %q", ErrCheckpoint, origin, v.Name())
		}
	}
	n, err := note.Open(text, note.VerifierList(verifiers...))
	if err != nil {
		return Head{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if len(n.Sigs) == 0 || n.Text != checkpointText(origin, h) {
		return Head{}, fmt.Errorf("%w: the signature is not over this tree", ErrCheckpoint)
	}
	return h, nil
}

// ParseCheckpoint reads a checkpoint without looking at who signed it: for
// whoever signed it. Everybody else calls OpenCheckpoint.
func ParseCheckpoint(text []byte) (origin string, h Head, err error) {
	if len(text) > MaxCheckpoint {
		return "", Head{}, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(text))
	}
	body, signatures, ok := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(body), "\n")
	if !ok || len(lines) != 3 || len(signatures) == 0 || !validOrigin(lines[0]) {
		return "", Head{}, fmt.Errorf("%w: malformed", ErrCheckpoint)
	}
	h.N, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || h.N < 0 || h.N > MaxSize {
		return "", Head{}, fmt.Errorf("%w: malformed size", ErrCheckpoint)
	}
	hash, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || copy(h.Hash[:], hash) != len(h.Hash) {
		return "", Head{}, fmt.Errorf("%w: malformed hash", ErrCheckpoint)
	}
	// Exactly one way to write a tree: no sign, no leading zero, no other base64.
	if checkpointText(lines[0], h) != string(body)+"\n" {
		return "", Head{}, fmt.Errorf("%w: malformed", ErrCheckpoint)
	}
	return lines[0], h, nil
}
