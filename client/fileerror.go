// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"slices"

	"valise/client/file"
	"valise/wire"
)

// Why the file of an event will not come, however often it is asked for.
const (
	FileGone    = "file_gone"    // the gateway does not have it any more
	FileAltered = "file_altered" // it is not what its sender sealed, or not as the message describes it
	FileRefused = "file_refused" // the gateway does not give it to this device
	FileNoName  = "file_no_name" // the folder has too many files of its name
)

// A FileError is returned by Fetch for a file that will not come. Whoever reads events
// goes on without it: what follows must not wait for what one sender has sent.
type FileError struct {
	Reason string // one of the above
	err    error
}

func (e *FileError) Error() string     { return e.err.Error() }
func (e *FileError) Unwrap() error     { return e.err }
func (e *FileError) ErrorCode() string { return e.Reason }

// IsFileReason says whether a code is a FileError's.
func IsFileReason(code string) bool {
	return slices.Contains([]string{FileGone, FileAltered, FileRefused, FileNoName}, code)
}

// fileError marks what is final.
func fileError(err error) error {
	var refused *Refused
	reason := ""
	switch {
	case err == nil, errors.Is(err, ErrOffline), errors.Is(err, errBroken):
	case errors.Is(err, file.ErrGone):
		reason = FileGone
	case errors.Is(err, file.ErrAltered), errors.Is(err, file.ErrReference), errors.Is(err, file.ErrTooLarge), errors.Is(err, wire.ErrMalformed):
		reason = FileAltered
	case errors.Is(err, file.ErrNames):
		reason = FileNoName
	case errors.As(err, &refused):
		reason = FileRefused
	}
	if reason == "" {
		return err
	}
	return &FileError{Reason: reason, err: err}
}
