// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"io/fs"
	"os"
	"path/filepath"
)

// CopyHome copies the files of an official's home, as a thief or a backup would,
// and leaves its socket behind.
func CopyHome(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case e.IsDir():
			return os.MkdirAll(target, 0o700)
		case !e.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}
