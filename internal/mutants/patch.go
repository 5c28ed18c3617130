// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A mutant is one patch file.
type mutant struct {
	name    string // file name without .patch
	path    string
	pkg     string // ./identity
	pattern string // ^TestDevice$
	removes string
}

var testLine = regexp.MustCompile(`^(\./[\w./-]*|\.) -run '?([^\s']+)'?$`)

// load reads the headers of every patch of the folder, or of those named.
func load(dir string, names []string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var mutants []mutant
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".patch")
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		m, err := readHeader(path)
		if err != nil {
			return nil, fmt.Errorf("%s.patch: %w", name, err)
		}
		m.name = name
		mutants = append(mutants, m)
	}
	for _, name := range names {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.name == name }) {
			return nil, fmt.Errorf("no mutants/%s.patch", name)
		}
	}
	if len(mutants) == 0 {
		return nil, fmt.Errorf("no patches in %s", dir)
	}
	return mutants, nil
}

// readHeader reads the lines before the first line of the diff.
func readHeader(path string) (mutant, error) {
	m := mutant{path: path}
	f, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "diff ") || strings.HasPrefix(line, "--- ") {
			break
		}
		if text, ok := strings.CutPrefix(line, "test:"); ok {
			match := testLine.FindStringSubmatch(strings.TrimSpace(text))
			if match == nil {
				return m, fmt.Errorf("%q is not \"test: ./package -run ^TestName$\"", line)
			}
			m.pkg, m.pattern = match[1], match[2]
		}
		if text, ok := strings.CutPrefix(line, "removes:"); ok {
			m.removes = strings.TrimSpace(text)
		}
	}
	if err := lines.Err(); err != nil {
		return m, err
	}
	if m.pkg == "" || m.removes == "" {
		return m, fmt.Errorf("needs the lines \"test: ./package -run ^TestName$\" and \"removes: what\" above the diff")
	}
	return m, nil
}
