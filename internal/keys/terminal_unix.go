// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package keys

const controllingTerminal = "/dev/tty"
