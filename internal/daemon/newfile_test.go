// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A new file is whole or not there, leaves nothing else behind, and replaces nothing.
func TestWriteNew(t *testing.T) {
	broken := errors.New("broken")
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write := func(w io.Writer) error {
		_, err := io.WriteString(w, "content")
		return err
	}
	check := func(r io.ReadSeeker) error {
		if data, err := io.ReadAll(r); err != nil || string(data) != "content" {
			t.Errorf("read back %q, %v", data, err)
		}
		return nil
	}
	fails := func(w io.Writer) error { return errors.Join(write(w), broken) }
	if err := WriteNew(path, fails, check); !errors.Is(err, broken) {
		t.Errorf("half written: %v", err)
	}
	if err := WriteNew(path, write, func(io.ReadSeeker) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("not as it was written: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Fatalf("left behind: %v, %v", list, err)
	}
	if err := WriteNew(path, write, check); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(path, write, check); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	info, err := os.Stat(path)
	if list, listErr := os.ReadDir(dir); err != nil || listErr != nil || len(list) != 1 || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, %v, %v", list, info, err, listErr)
	}
}
