// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Whoever asks first, all get the same key, which nobody else can read.
func TestActivationKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, activationFile)
	keys := make([][]byte, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			if keys[i], err = activationKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, key := range keys {
		if len(key) != activationSize || !bytes.Equal(key, keys[0]) {
			t.Errorf("keys %x and %x", key, keys[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	other, err := activationKey(filepath.Join(t.TempDir(), activationFile))
	if err != nil || bytes.Equal(other, keys[0]) {
		t.Errorf("two authorities have one key, %v", err)
	}
	if err := os.WriteFile(path, keys[0][:31], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := activationKey(path); err == nil {
		t.Error("a damaged file was taken")
	}
}
