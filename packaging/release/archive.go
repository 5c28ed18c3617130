// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// writeTar writes a folder as an archive in which nothing is of this machine or day:
// sorted, owned by nobody in particular, of one time.
func writeTar(w io.Writer, dir, prefix string, at time.Time) error {
	archive := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error { // in order of names
		if err != nil {
			return err
		}
		within, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: path.Join(prefix, filepath.ToSlash(within)), ModTime: at, Format: tar.FormatPAX}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, h.Name+"/"
			return archive.WriteHeader(h)
		case !d.Type().IsRegular():
			return errors.New(name + " is neither a file nor a folder")
		}
		h.Typeflag, h.Size, h.Mode = tar.TypeReg, info.Size(), int64(0o644|info.Mode().Perm()&0o111)
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(archive, f)
		return err
	})
	return errors.Join(err, archive.Close())
}

// writeFile writes a file through a function, of a given time.
func writeFile(name string, at time.Time, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Chtimes(name, at, at)
}

// zipped compresses without a name or a time (RFC 1952, Section 2.3.1).
func zipped(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(data)
	err = errors.Join(err, w.Close()) // before the bytes are looked at
	return out.Bytes(), err
}

// writeZipped writes a compressed archive of a folder.
func writeZipped(w io.Writer, dir, prefix string, at time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	return errors.Join(writeTar(z, dir, prefix, at), z.Close())
}
