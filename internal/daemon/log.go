// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLog returns a log of JSON lines. The level is one of debug, info, warn, error;
// empty means info, and so does anything else (LoadTOML's Level refuses it earlier).
func NewLog(w io.Writer, level Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level.Level}))
}

// A Level is a log level in a configuration file.
type Level struct{ slog.Level }

// UnmarshalText accepts debug, info, warn and error.
func (l *Level) UnmarshalText(text []byte) error {
	switch string(text) {
	case "debug", "info", "warn", "error":
		return l.Level.UnmarshalText(text)
	}
	return fmt.Errorf("log level %q is none of debug, info, warn, error", text)
}
