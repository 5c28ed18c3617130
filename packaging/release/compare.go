// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// compare lists the files in which two folders differ: by their bytes, by whether they
// may be run, or because one folder lacks them.
func compare(a, b string) ([]string, error) {
	in, err := list(a)
	if err != nil {
		return nil, err
	}
	other, err := list(b)
	if err != nil {
		return nil, err
	}
	if len(in) == 0 {
		return nil, fmt.Errorf("%s holds nothing to compare", a)
	}
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(in)) {
		mode, ok := other[name]
		if !ok || mode != in[name] {
			differ = append(differ, name)
			continue
		}
		same, err := sameFile(filepath.Join(a, name), filepath.Join(b, name))
		if err != nil {
			return nil, err
		}
		if !same {
			differ = append(differ, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		if _, ok := in[name]; !ok {
			differ = append(differ, name)
		}
	}
	return differ, nil
}

// list returns the files below a folder, and whether each may be run.
func list(dir string) (map[string]fs.FileMode, error) {
	all := make(map[string]fs.FileMode)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		within, err := filepath.Rel(dir, name)
		all[within] = info.Mode()&fs.ModeType | info.Mode().Perm()&0o100 // the others' bits are the umask's
		return err
	})
	return all, err
}

func sameFile(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	left, right := bufio.NewReaderSize(f, 1<<20), bufio.NewReaderSize(g, 1<<20)
	for {
		x, errX := left.ReadByte()
		y, errY := right.ReadByte()
		switch {
		case errors.Is(errX, io.EOF) && errors.Is(errY, io.EOF):
			return true, nil
		case errX != nil && !errors.Is(errX, io.EOF):
			return false, errX
		case errY != nil && !errors.Is(errY, io.EOF):
			return false, errY
		case errX != nil || errY != nil || x != y:
			return false, nil
		}
	}
}
