// SPDX-License-Identifier: Apache-2.0

// Command check compares what was received with what was sent, by SHA-256. It
// shares no code with Valise and asks none of its programs.
//
//	check SENT RECEIVED [AUDIT]
//
// SENT has a folder for each recipient, with one file for each message
// (text/*) and each file (files/*) that was sent to them; those that bear a label have a
// file in marked/ too, with the marking in its first line and the text behind it. Its file
// "audit", if there is one, lists reason codes, one a line, that the gateway's audit
// stream AUDIT must have. RECEIVED has a folder for each
// recipient with messages.jsonl, as `valise receive --append` writes it, and
// files/, where received files were put.
//
// It prints one line,
//
//	checked: M messages and F files delivered, L lost, D duplicated, A altered, B mislabelled, U refusals unaccounted for
//
// and ends with status 1 unless all from L on are 0. Something that arrived and was
// never sent counts as altered; a message that bears another marking than its sender
// gave it, or one where there was none, as mislabelled.
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
	"strings"
)

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: check SENT RECEIVED [AUDIT]")
		os.Exit(2)
	}
	r, err := compare(os.Args[1], os.Args[2])
	if err == nil && len(os.Args) == 4 {
		r.unaccounted, err = missing(filepath.Join(os.Args[1], "audit"), os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
	fmt.Println(r)
	if r.lost+r.duplicated+r.altered+r.mislabelled+r.unaccounted > 0 || r.messages+r.files == 0 {
		os.Exit(1)
	}
}

type digest [sha256.Size]byte

// A result counts, over all recipients.
type result struct{ messages, files, lost, duplicated, altered, mislabelled, unaccounted int }

func (r result) String() string {
	return fmt.Sprintf("checked: %d messages and %d files delivered, %d lost, %d duplicated, %d altered, %d mislabelled, %d refusals unaccounted for",
		r.messages, r.files, r.lost, r.duplicated, r.altered, r.mislabelled, r.unaccounted)
}

func compare(sent, received string) (result, error) {
	var total result
	recipients, err := os.ReadDir(sent)
	if err != nil {
		return total, err
	}
	for _, to := range recipients {
		if !to.IsDir() {
			continue
		}
		in, out := filepath.Join(sent, to.Name()), filepath.Join(received, to.Name())
		wantText, err1 := hashFiles(filepath.Join(in, "text"))
		haveText, markings, err2 := hashTexts(filepath.Join(out, "messages.jsonl"))
		wantFiles, err3 := hashFiles(filepath.Join(in, "files"))
		haveFiles, err4 := hashFiles(filepath.Join(out, "files"))
		marked, err5 := readMarked(filepath.Join(in, "marked"))
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return total, err
		}
		for text, have := range markings {
			for _, marking := range have {
				if marking != marked[text] {
					total.mislabelled++
				}
			}
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

// hashTexts digests the text of every message in a file of JSON lines, and lists the
// markings that each came with.
func hashTexts(path string) (sums map[digest]int, markings map[digest][]string, err error) {
	sums, markings = map[digest]int{}, map[digest][]string{}
	err = jsonLines(path, func(line []byte) error {
		var m struct {
			Text    *string
			Marking string
		}
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		if m.Text != nil && *m.Text != "" {
			d := digest(sha256.Sum256([]byte(*m.Text)))
			sums[d]++
			markings[d] = append(markings[d], m.Marking)
		}
		return nil
	})
	return sums, markings, err
}

// readMarked reads which marking each text was given.
func readMarked(dir string) (map[digest]string, error) {
	out := map[digest]string{}
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	for _, e := range list {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		marking, text, ok := strings.Cut(string(data), "\n")
		if !ok {
			return nil, fmt.Errorf("%s: no marking", e.Name())
		}
		out[sha256.Sum256([]byte(text))] = marking
	}
	return out, err
}

// missing counts the reason codes of a list that an audit stream does not have, each as
// often as it is listed.
func missing(list, audit string) (int, error) {
	data, err := os.ReadFile(list)
	if err != nil {
		return 0, err
	}
	want := map[string]int{}
	for reason := range strings.FieldsSeq(string(data)) {
		want[reason]++
	}
	err = jsonLines(audit, func(line []byte) error {
		var m struct{ Reason string }
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		want[m.Reason]--
		return nil
	})
	n := 0
	for _, left := range want {
		n += max(0, left)
	}
	return n, err
}

// jsonLines reads a file of JSON lines; one that is not there is empty.
func jsonLines(path string, f func(line []byte) error) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		if err := f(lines.Bytes()); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return lines.Err()
}
