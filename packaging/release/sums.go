// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"valise/hsm"
	"valise/internal/keys"
)

// The files that bind a bundle together.
const (
	sumsFile      = "SHA256SUMS"
	signatureFile = "SHA256SUMS.sig"
)

// plainName is what file names in a bundle look like: the scripts that check it read
// them line by line.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._+~/-]+$`)

// writeSums lists every file with its hash, as sha256sum(1) reads it.
func writeSums(dir string, at time.Time) error {
	files, err := list(dir)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if files[name].Type() != 0 || !plainName.MatchString(name) {
			return fmt.Errorf("%q cannot be in a bundle: it is no plain file, or has no plain name", name)
		}
		sum, err := sumOf(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%s  ./%s\n", sum, filepath.ToSlash(name))
	}
	s := stage{dir: dir, time: at}
	return s.write(sumsFile, []byte(text.String()), 0o644)
}

func sumOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// A signer is the release's key in its token.
type signer struct {
	token       hsm.Token
	key         hsm.Key
	pem         []byte // of the public key
	fingerprint string
}

// openSigner opens the key, and makes it the first time.
func openSigner(ctx context.Context, text, pinFile string) (*signer, error) {
	uri, err := keys.Parse(text)
	if err != nil {
		return nil, err
	}
	if uri.Ref == "" {
		return nil, errors.New(`the key's URI names no object: add ";object=bundle" to the token's part`)
	}
	pin := keys.PINPrompt(nil)
	if pinFile != "" {
		pin = keys.PINFromFile(pinFile)
	}
	s := new(signer)
	if s.token, err = uri.OpenToken(ctx, pin); err != nil {
		return nil, err
	}
	s.key, err = uri.Key(ctx, s.token)
	if errors.Is(err, hsm.ErrNoKey) {
		s.key, err = s.token.Generate(ctx, uri.Ref, hsm.GenerateOptions{Algorithm: hsm.P384, Name: "valise release"})
	}
	if err == nil {
		_, ok := s.key.Public().(*ecdsa.PublicKey)
		if !ok {
			err = errors.New("the release's key must be on P-384 or P-256")
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	sum := sha256.Sum256(der)
	s.pem, s.fingerprint = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), hex.EncodeToString(sum[:])
	return s, nil
}

func (s *signer) close() error {
	var err error
	if s.key != nil {
		err = s.key.Close()
	}
	return errors.Join(err, s.token.Close())
}

// sign signs the list of a bundle: ECDSA with SHA-384, FIPS 186-5, Section 6.
func (s *signer) sign(dir string, at time.Time) error {
	text, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return err
	}
	digest := sha512.Sum384(text)
	signature, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA384)
	if err != nil {
		return fmt.Errorf("sign the bundle: %w", err)
	}
	if !ecdsa.VerifyASN1(s.key.Public().(*ecdsa.PublicKey), digest[:], signature) {
		return errors.New("sign the bundle: the token's signature does not hold")
	}
	out := stage{dir: dir, time: at}
	return out.write(signatureFile, signature, 0o644)
}
