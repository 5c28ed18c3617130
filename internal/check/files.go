// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"valise/internal/daemon"
)

// Configuration says how the configuration file is: err is what reading it ended with,
// nil, or an error that may join several.
func Configuration(r *Report, path string, err error) (ok bool) {
	ok = true
	for _, err := range each(err) {
		ok = false
		if errors.Is(err, daemon.ErrUnknownKey) {
			r.Fail("configuration", "config_unknown_key", "correct the key, or remove it: a misspelt restriction is a missing one", "%v", err)
			continue
		}
		r.Fail("configuration", "config_invalid", "correct it; init writes an example with every field explained", "%v", err)
	}
	for name := path; ; name = filepath.Dir(name) {
		info, err := os.Stat(name)
		if err != nil {
			r.Fail("configuration", "config_unreadable", "name the file with --config, and let the daemon's user read it", "%v", bare(err))
			return false
		}
		if mode := info.Mode(); mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
			r.Fail("configuration", "config_writable", "chmod go-w "+name, "others than its owner can change %s (mode %04o), and with it whom this daemon trusts", name, mode.Perm())
			return false
		}
		if info.IsDir() { // the folder that the file lies in, and no more
			break
		}
	}
	if ok {
		r.OK("configuration", "%s is understood, and only its owner can change it", path)
	}
	return ok
}

// each takes joined errors apart.
func each(err error) (all []error) {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	if inner := errors.Unwrap(err); inner != nil {
		if parts := each(inner); len(parts) > 1 {
			return parts
		}
	}
	return []error{err}
}

// Secret says whether a file that holds a secret can be read by its owner only. An empty
// path is no file.
func Secret(r *Report, what, path string) {
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		r.Fail("files", "secret_unreadable", "put it there, readable by the daemon's user only", "%s: %v", what, bare(err))
		return
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		r.Fail("files", "secret_unreadable", "put it there, readable by the daemon's user only", "%s: %v", what, bare(err))
	case !info.Mode().IsRegular():
		r.Fail("files", "secret_no_file", "put a plain file there", "%s: %s is no plain file", what, path)
	case info.Mode().Perm()&0o077 != 0:
		r.Fail("files", "secret_open", "chmod 600 "+path+", and if others may have read it, change what it holds", "%s: others can read %s (mode %04o)", what, path, info.Mode().Perm())
	default:
		r.OK("files", "%s: only its owner can read %s", what, path)
	}
}

// Readable says whether a file is there and can be read. An empty path is no file.
func Readable(r *Report, what, path, do string) (ok bool) {
	if path == "" {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		r.Fail("files", "file_unreadable", do, "%s: %v", what, bare(err))
		return false
	}
	_ = f.Close()
	return true
}

// Directory says whether a directory of the daemon's is its own. One that is missing is
// made when the daemon starts, if that is possible.
func Directory(r *Report, what, path string) (there bool) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if above, aboveErr := os.Stat(filepath.Dir(path)); aboveErr == nil && above.IsDir() && writable(filepath.Dir(path)) == nil {
			r.Warn("files", "directory_missing", "nothing, before the first start; afterwards: find out who removed it, and restore a backup", "%s: %s does not exist yet and will be made", what, path)
			return false
		}
		r.Fail("files", "directory_missing", "make it: install -d -m 0700 -o DAEMON-USER "+path, "%s: %s does not exist and cannot be made", what, path)
		return false
	}
	switch {
	case err != nil:
		r.Fail("files", "directory_unreadable", "let the daemon's user own it", "%s: %v", what, bare(err))
	case !info.IsDir():
		r.Fail("files", "directory_no_directory", "move the file away", "%s: %s is no directory", what, path)
	case info.Mode().Perm()&0o022 != 0:
		r.Fail("files", "directory_writable", "chmod 700 "+path, "%s: others can write to %s (mode %04o)", what, path, info.Mode().Perm())
	case writable(path) != nil:
		r.Fail("files", "directory_unwritable", "let the daemon's user own it, and mount it for writing", "%s: %v", what, bare(writable(path)))
	case info.Mode().Perm()&0o077 != 0:
		r.Warn("files", "directory_open", "chmod 700 "+path, "%s: others can look into %s (mode %04o)", what, path, info.Mode().Perm())
		return true
	default:
		r.OK("files", "%s: %s belongs to this user alone", what, path)
		return true
	}
	return false
}

// Appendable says whether a stream can be written: what is there is only opened, and
// where there is nothing yet, its directory takes files.
func Appendable(r *Report, what, path string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writable(filepath.Dir(path)); err != nil {
			r.Fail("audit", "audit_unwritable", "make the directory, owned by the daemon's user", "%s: %v", what, bare(err))
			return
		}
		r.OK("audit", "%s: %s will be made", what, path)
		return
	}
	if err != nil {
		r.Fail("audit", "audit_unwritable", "let the daemon's user own it", "%s: %v", what, bare(err))
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		r.Fail("audit", "audit_open", "chmod 600 "+path, "%s: others can read %s", what, path)
		return
	}
	r.OK("audit", "%s: %s takes lines", what, path)
}

// writable tries with a file that has no name, or loses it at once.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(f.Name()), f.Close())
}

// bare keeps an error's path from being said twice.
func bare(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}
