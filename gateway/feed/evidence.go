// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// contradiction ends the name of the file beside the copy that holds, after a line
// which says what is wrong, the document that contradicts it.
const contradiction = ".contradiction"

// keepEvidence keeps the first contradiction, and no later one in its place.
func keepEvidence(path string, what error, evidence []byte) error {
	f, err := os.OpenFile(path+contradiction, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%v\n%s", what, evidence)
	return errors.Join(err, f.Sync(), f.Close())
}

// readEvidence returns the contradiction that was found before, nil if none was or
// somebody took it away.
func readEvidence(path string) (fork, err error) {
	f, err := os.Open(path + contradiction)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxReply))
	if err != nil {
		return nil, err
	}
	what, _, _ := bytes.Cut(text, []byte("\n"))
	what = bytes.TrimPrefix(what, []byte(ErrFork.Error()+": "))
	return fmt.Errorf("%w: %s, as is said in %s", ErrFork, what, f.Name()), nil
}
