// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/internal/testenv"
)

// The demo in its short form says that all is well when it is, and each sabotage
// makes it fail, for the reason of that sabotage. Nothing goes on running after it,
// and an honest run leaves nothing in the folder for temporary files.
func TestDemoIsHonest(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "pcscd", "pcscd")
	testenv.Need(t, "/usr/lib*/pcsc/drivers/serial/libifdvpcd.so", "vsmartcard-vpcd")
	testenv.Need(t, "softhsm2-util", "softhsm2")
	demo := filepath.Join(commands(t), "demo")
	lastLine := regexp.MustCompile(`\ndemo: ok: [1-9][0-9]* messages and [1-9][0-9]* files delivered, 0 lost, 0 duplicated, 14 intruders refused\n$`)
	failed := func(differences string) *regexp.Regexp {
		return regexp.MustCompile(`\ndemo: failed: the checker found differences: checked: [0-9]+ messages and [0-9]+ files delivered, ` + differences + `\n`)
	}
	cases := map[string]struct {
		status   int
		out, err *regexp.Regexp
	}{
		"":       {0, lastLine, regexp.MustCompile(`^$`)},
		"drop":   {1, nil, failed("1 lost, 0 duplicated, 0 altered, 0 mislabelled, 0 refusals unaccounted for")},
		"dup":    {1, nil, failed("0 lost, 1 duplicated, 0 altered, 0 mislabelled, 0 refusals unaccounted for")},
		"flip":   {1, nil, failed("1 lost, 0 duplicated, 1 altered, 0 mislabelled, 0 refusals unaccounted for")},
		"mark":   {1, nil, failed("0 lost, 0 duplicated, 0 altered, 1 mislabelled, 0 refusals unaccounted for")},
		"leak":   {1, nil, failed("0 lost, 0 duplicated, 1 altered, 1 mislabelled, 0 refusals unaccounted for")},
		"silent": {1, nil, failed("0 lost, 0 duplicated, 0 altered, 0 mislabelled, 1 refusals unaccounted for")},
		"admit":  {1, nil, regexp.MustCompile(`\ndemo: failed: a card under an unknown attestation root: the intruder was let in\n`)},
	}
	var wg sync.WaitGroup // all at once: a demo waits more than it works
	for sabotage, c := range cases {
		dir := testenv.ShortDir(t)
		wg.Go(func() {
			out, errs, status, err := playDemo(t.Context(), demo, dir, sabotage)
			switch {
			case err != nil:
				t.Errorf("sabotage %q: %v", sabotage, err)
			case status != c.status || !c.err.MatchString(errs) || c.out != nil && !c.out.MatchString(out):
				t.Errorf("sabotage %q: status %d\n%s\n%s", sabotage, status, out, errs)
			case c.out == nil && strings.Contains(out, "demo: ok"):
				t.Errorf("sabotage %q: it says that all is well, too:\n%s", sabotage, out)
			case !strings.Contains(out, "VIRTUAL CARD"):
				t.Errorf("sabotage %q: nothing says that the cards are virtual", sabotage)
			}
			for _, p := range mentioning(dir) {
				t.Errorf("sabotage %q: still running: %s", sabotage, p)
			}
			left, err := os.ReadDir(dir)
			if err != nil || c.status == 0 && len(left) > 0 {
				t.Errorf("sabotage %q: left behind: %v, %v", sabotage, left, err)
			}
		})
	}
	wg.Wait()
}

// playDemo runs the demo with a folder of its own for temporary files.
func playDemo(ctx context.Context, demo, dir, sabotage string) (out, errs string, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, demo)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it clears up
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "DEMO_SHORT=1", "DEMO_SABOTAGE="+sabotage, "KEEP=")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = ctx.Err()
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), err
}

// mentioning lists the processes that have a folder in their command line or
// environment.
func mentioning(dir string) (list []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		if bytes.Contains(append(line, env...), []byte(dir)) {
			list = append(list, p+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		}
	}
	return list
}
