// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Guard keeps this process's memory out of core files and away from the user's other
// processes: whoever runs as the same user can neither attach to it nor read
// /proc/PID/mem (prctl(2), PR_SET_DUMPABLE; core(5)).
func Guard() error {
	if err := errors.Join(
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
	); err != nil {
		return fmt.Errorf("keep the memory of this process from others: %w", err)
	}
	return nil
}
