// SPDX-License-Identifier: Apache-2.0

// Command check compares what was received with what was sent, by SHA-256. It
// shares no code with Valise and asks none of its programs.
//
//	check SENT RECEIVED
//
// SENT has a folder for each recipient, with one file for each message
// (text/*) and each file (files/*) that was sent to them. RECEIVED has a folder for each
// recipient with messages.jsonl, as `valise receive --append` writes it, and
// files/, where received files were put.
//
// It prints one line,
//
//	checked: M messages and F files delivered, L lost, D duplicated, A altered
//
// and ends with status 1 unless L, D and A are 0. Something that arrived and was
// never sent counts as altered.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: check SENT RECEIVED")
		os.Exit(2)
	}
	r, err := compare(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
	fmt.Println(r)
	if r.lost+r.duplicated+r.altered > 0 || r.messages+r.files == 0 {
		os.Exit(1)
	}
}

type digest [sha256.Size]byte

// A result counts, over all recipients.
type result struct{ messages, files, lost, duplicated, altered int }

func (r result) String() string {
	return fmt.Sprintf("checked: %d messages and %d files delivered, %d lost, %d duplicated, %d altered",
		r.messages, r.files, r.lost, r.duplicated, r.altered)
}

func compare(sent, received string) (result, error) {
	var total result
	recipients, err := os.ReadDir(sent)
	if err != nil {
		return total, err
	}
	for _, to := range recipients {
		in, out := filepath.Join(sent, to.Name()), filepath.Join(received, to.Name())
		wantText, err1 := hashFiles(filepath.Join(in, "text"))
		haveText, err2 := hashTexts(filepath.Join(out, "messages.jsonl"))
		wantFiles, err3 := hashFiles(filepath.Join(in, "files"))
		haveFiles, err4 := hashFiles(filepath.Join(out, "files"))
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return total, err
		}
		total.messages += total.count(wantText, haveText)
		total.files += total.count(wantFiles, haveFiles)
	}
	return total, nil
}

// count compares two multisets of digests and returns how many of want arrived.
func (r *result) count(want, have map[digest]int) (delivered int) {
	for d, n := range want {
		got := have[d]
		delivered += min(n, got)
		r.lost += max(0, n-got)
		r.duplicated += max(0, got-n)
	}
	for d, n := range have {
		if want[d] == 0 {
			r.altered += n
		}
	}
	return delivered
}

// hashFiles digests every file below dir; a folder that is not there is empty.
func hashFiles(dir string) (map[digest]int, error) {
	sums := map[digest]int{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		sums[digest(h.Sum(nil))]++
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return sums, err
}

// hashTexts digests the text of every message in a file of JSON lines.
func hashTexts(path string) (map[digest]int, error) {
	sums := map[digest]int{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return sums, nil
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		var m struct{ Text *string }
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if m.Text != nil && *m.Text != "" {
			sums[sha256.Sum256([]byte(*m.Text))]++
		}
	}
	return sums, lines.Err()
}
