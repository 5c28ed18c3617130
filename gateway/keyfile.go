// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quic-go/quic-go"

	"valise/gateway/mailbox"
)

// transportKeys live as long as the data directory. With them a restarted
// gateway can tell devices at once that their old connection is gone (RFC 9000,
// Section 10.3), and accepts the address tokens that it gave out before. They
// protect no content.
type transportKeys struct {
	reset quic.StatelessResetKey
	token quic.TokenGeneratorKey
}

// transportKeysOf are the keys of the data directory or, where several gateways use the
// store, those that they share: so that any of them behind one address can tell a device
// that its connection is gone, and takes the address tokens of the others.
func transportKeysOf(cfg Config) (k transportKeys, err error) {
	node, ok := cfg.Store.(mailbox.Node)
	if !ok {
		return loadTransportKeys(cfg.Dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedKeysTimeout)
	defer cancel()
	keys, err := node.TransportKeys(ctx)
	if err != nil {
		return k, fmt.Errorf("gateway: the transport keys: %w", err)
	}
	k.reset, k.token = keys.Reset, keys.Token
	return k, nil
}

func loadTransportKeys(dir string) (k transportKeys, err error) {
	if err := loadKey(filepath.Join(dir, "stateless-reset.key"), k.reset[:]); err != nil {
		return k, err
	}
	return k, loadKey(filepath.Join(dir, "token.key"), k.token[:])
}

// loadKey reads a key file, or makes it. It is written under another name and
// renamed, so that a crash leaves no half of one.
func loadKey(path string, key []byte) error {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := rand.Read(key); err != nil {
			return err
		}
		if err := writeNew(path, key); err != nil {
			return fmt.Errorf("gateway: make %s: %w", path, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("gateway: %w", err)
	case len(data) != len(key):
		return fmt.Errorf("gateway: %s has %d bytes, want %d: remove it and start again", path, len(data), len(key))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("gateway: %s is open to other users: chmod 600 it", path)
	}
	copy(key, data)
	return nil
}

func writeNew(path string, data []byte) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
