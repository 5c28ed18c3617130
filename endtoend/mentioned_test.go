// SPDX-License-Identifier: Apache-2.0

//go:build linux

package endtoend

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"valise/internal/handbook"
	"valise/internal/testenv"
)

// TestCommandsThatAreNotTyped: a command that stands within a sentence, or in a block
// that says why no test runs it, exists with these options all the same. Ours are asked
// for their help with all that is written; of others' it is known who has them.
func TestCommandsThatAreNotTyped(t *testing.T) {
	t.Parallel()
	bin, root := commands(t), testenv.Root(t)
	folder, list := documents(t)
	ask := make(map[string][]string) // by what is asked, so that each is asked once
	for _, name := range list {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range handbook.Broken(data) {
			t.Errorf("docs/%s:%d: code that begins or ends in another line", name, line)
		}
		mentioned, lines := handbook.Mentioned(data)
		for i, words := range mentioned {
			ask[strings.Join(words, " ")] = append(ask[strings.Join(words, " ")], fmt.Sprintf("docs/%s:%d", name, lines[i]))
		}
		for _, step := range read(t, folder, name) {
			if step.NotRun == "" {
				continue
			}
			if words, ok := handbook.Ours(step.Command); ok {
				ask[strings.Join(words, " ")] = append(ask[strings.Join(words, " ")], step.At)
			} else if err := others(root, step.Command); err != nil {
				t.Errorf("%s: %v", step.At, err)
			}
		}
	}
	if len(ask) < 20 {
		t.Errorf("only %d commands were found within sentences", len(ask))
	}
	for _, text := range slices.Sorted(maps.Keys(ask)) {
		if err := exists(bin, text); err != nil {
			t.Errorf("%s: %v", strings.Join(ask[text], ", "), err)
		}
	}
}

var (
	dropped = regexp.MustCompile(`^[("'` + "`" + `]+|[)"'` + "`" + `,.]+$`)
	quoted  = regexp.MustCompile(`"[^"]*"`)
	absent  = regexp.MustCompile(`stat \S*?([^/\s]+): no such file`)
)

// exists asks a program for help about a command: it looks at the options first, and
// at files that are to be there, in whose place it is given one that is.
func exists(bin, command string) error {
	words := strings.Fields(quoted.ReplaceAllString(command, "X"))
	for i := range words {
		words[i] = dropped.ReplaceAllString(words[i], "")
	}
	for {
		cmd := exec.Command(filepath.Join(bin, words[0]), append(words[1:], "--help")...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		file := absent.FindSubmatch(out)
		at := -1
		if file != nil {
			at = slices.IndexFunc(words, func(w string) bool { return filepath.Base(w) == string(file[1]) })
		}
		if at < 0 {
			return fmt.Errorf("%s: %w\n%s", command, err, out)
		}
		words[at] = os.DevNull
	}
}

// others: a target of make, or a package of ours for apt-get.
func others(root, command string) error {
	words := strings.Fields(command)
	switch {
	case words[0] == "make" && len(words) > 1:
		makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
		if err == nil && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(words[1])+`:`).Match(makefile) {
			err = fmt.Errorf("there is no target %s", words[1])
		}
		return err
	case words[0] == "apt-get" && len(words) > 2 && words[1] == "install":
		for _, name := range words[2:] {
			name, _, _ = strings.Cut(strings.TrimPrefix(name, "./"), "_")
			if _, err := os.Stat(filepath.Join(root, "packaging", "nfpm", name+".yaml")); err != nil {
				return fmt.Errorf("no package %s is made: %w", name, err)
			}
		}
		return nil
	}
	return fmt.Errorf("nothing checks that this exists: %s", command)
}

// A command that does not exist is found, in each of the ways.
func TestCommandThatDoesNotExist(t *testing.T) {
	t.Parallel()
	bin, root := commands(t), testenv.Root(t)
	for text, bad := range map[string]bool{
		"valise send --label X bob@interieur.example": false, "valise send --lable X bob@interieur.example": true,
		"valise officer suspend": false, "valise officer suspect": true,
		"valise-gatewayd backup --config F --out T": false, "valise-gatewayd backup --config F --into T": true,
	} {
		if err := exists(bin, text); (err != nil) != bad {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, bad := range map[string]bool{
		"make bench-relay": false, "make bench-tea": true, "reboot": true,
		"apt-get install ./valise_*.deb": false, "apt-get install ./valise-teapot_*.deb": true,
	} {
		if err := others(root, text); (err != nil) != bad {
			t.Errorf("%s: %v", text, err)
		}
	}
}
