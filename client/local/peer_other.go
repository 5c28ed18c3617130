// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package local

import "net"

// checkPeer relies on the permissions of the socket and its folder where the kernel
// is not asked.
func checkPeer(net.Conn) error { return nil }
