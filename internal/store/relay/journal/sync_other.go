// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package journal

import "os"

func datasync(f *os.File) error { return f.Sync() }

func direct(*os.File, bool) error { return nil }

func allocate(f *os.File, size int64) error { return f.Truncate(size) }
