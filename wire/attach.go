// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strconv"
	"strings"
	"time"
)

// Attach is the first frame of an attach stream: it binds a further connection to
// the one that said Hello. See spec/wire.md, Section 12.3.
//
//	struct { opaque token[32]; } Attach;
type Attach struct {
	Token [32]byte // transport.Binding of both connections
}

// Type implements Frame.
func (*Attach) Type() Type { return TypeAttach }

func (a *Attach) fields(f field) { f.fixed(a.Token[:]) }

// MaxBack bounds for how long a gateway may ask a device to stay away.
const MaxBack = 10 * time.Minute

const backPrefix = "back="

// BackIn is the reason of a CloseShutdown that says when to come back: the
// gateway spreads its devices over some time.
func BackIn(d time.Duration) string {
	return backPrefix + strconv.Itoa(int(min(d, MaxBack)/time.Millisecond))
}

// ParseBack reads what BackIn wrote; false for any other reason.
func ParseBack(reason string) (time.Duration, bool) {
	digits, ok := strings.CutPrefix(reason, backPrefix)
	if !ok || len(digits) > 6 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != digits {
		return 0, false
	}
	d := time.Duration(n) * time.Millisecond
	return d, d <= MaxBack
}
