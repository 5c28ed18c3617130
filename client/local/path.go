// SPDX-License-Identifier: Apache-2.0

package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// SocketPath is where the agent of a home directory listens: in it, or, if that path
// is too long for a socket's address, in a folder of this user's under the system's
// folder for temporary files.
func SocketPath(home string) (string, error) {
	abs, err := filepath.Abs(home)
	if err != nil {
		return "", err
	}
	if path := filepath.Join(abs, "agent.sock"); len(path) <= maxSocketPath {
		return path, nil
	}
	sum := sha256.Sum256([]byte(abs))
	return filepath.Join(os.TempDir(), fmt.Sprintf("valise-%d", os.Getuid()), hex.EncodeToString(sum[:8])+".sock"), nil
}

// Listen opens the agent's socket for a home. A socket that a killed agent left behind
// is replaced; the caller holds the home's lock, so there is no living one.
func Listen(home string) (net.Listener, error) {
	path, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	if err := private(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &guarded{ln}, nil
}

// private makes a folder that only this user can enter, or refuses one that others
// can.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	return checkOwner(dir, info)
}

// guarded lets nobody in but this user.
type guarded struct{ net.Listener }

func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := checkPeer(c); err == nil {
			return c, nil
		}
		c.Close()
	}
}
