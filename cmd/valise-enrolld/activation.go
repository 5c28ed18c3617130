// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// activationFile holds what TPMs' activation secrets are derived from
// (spec/enrollment.md, Section 5.2). It stands beside the database and not in it:
// who reads the database must not be able to answer for a TPM. All processes on one
// database need the same file; losing it costs only the enrollments under way.
const activationFile = "activation.key"

const activationSize = 32

// activationKey reads the key, and makes it at the first start.
func activationKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeActivationKey(path); err != nil {
			return nil, err
		}
		key, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	if len(key) != activationSize {
		return nil, fmt.Errorf("%s is damaged: remove it, and TPMs that are being enrolled begin again", path)
	}
	return key, nil
}

// makeActivationKey writes a whole file or none; of two processes the first wins.
func makeActivationKey(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), activationFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	key := make([]byte, activationSize)
	rand.Read(key)
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
