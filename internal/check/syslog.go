// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"

	"valise/internal/syslog"
)

// Syslog connects to the collector of the audit stream's copy and sends it nothing.
func Syslog(ctx context.Context, r *Report, cfg syslog.Config) {
	if cfg.Server == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	if err := cfg.Dial(ctx); err != nil {
		r.Warn("audit", "syslog_unreachable", "look at the collector; until it answers, lines wait in a bounded queue, and the file has them all", "%s: %v", cfg.Server, err)
		return
	}
	r.OK("audit", "the collector %s takes connections", cfg.Server)
}
