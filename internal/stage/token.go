// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"valise/internal/p11relay"
)

// A Token is a SoftHSM token with its own configuration.
type Token struct {
	Label  string
	Module string
	Env    []string // what a process needs in its environment to see it

	stage  *Stage
	server *Process // p11-kit's server, where the stage has TokenServers
	socket string
	soft   string // SoftHSM's module, behind package p11relay where a server loads it
}

// URI names an object in the token, RFC 7512.
func (t *Token) URI(object string) string {
	return fmt.Sprintf("pkcs11:token=%s;object=%s?module-path=%s", t.Label, object, t.Module)
}

// NewToken makes a SoftHSM token.
func (s *Stage) NewToken(ctx context.Context, label string) (*Token, error) {
	soft, err := installed("/usr/lib*/softhsm/libsofthsm2.so", "softhsm2")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Dir, "token-"+label)
	conf := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", dir)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(conf, []byte(text), 0o600)); err != nil {
		return nil, err
	}
	t := &Token{Label: label, Module: soft, Env: []string{"SOFTHSM2_CONF=" + conf}, stage: s, soft: soft}
	if _, err := Output(ctx, t.Env, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN); err != nil {
		return nil, err
	}
	if !s.cfg.TokenServers {
		return t, nil
	}
	client, err := installed("/usr/lib*/*/pkcs11/p11-kit-client.so", "p11-kit-modules")
	if err != nil {
		return nil, err
	}
	if t.Module, err = p11relay.Build(ctx, dir, client, p11relay.Client); err != nil {
		return nil, err
	}
	if t.soft, err = p11relay.Build(ctx, dir, soft, p11relay.Server); err != nil {
		return nil, err
	}
	t.socket = filepath.Join(dir, "hsm")
	t.Env = append(t.Env, "P11_KIT_SERVER_ADDRESS=unix:path="+t.socket)
	return t, t.Start(ctx)
}

// NewTokenBeside makes a token that a process which sees another one sees too. Where
// tokens have servers it is the other one: a client of p11-kit knows one server.
func (s *Stage) NewTokenBeside(ctx context.Context, other *Token, label string) (*Token, error) {
	if s.cfg.TokenServers {
		return other, nil
	}
	return s.newTokenIn(ctx, other, label)
}

// newTokenIn makes a token in the folder of another one, without a server.
func (s *Stage) newTokenIn(ctx context.Context, other *Token, label string) (*Token, error) {
	_, err := Output(ctx, other.Env, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN)
	return &Token{Label: label, Module: other.soft, Env: other.Env, stage: s, soft: other.soft}, err
}

// Start starts the token's server, again after Kill; it returns when the server
// takes connections.
func (t *Token) Start(ctx context.Context) error {
	program, err := installed("/usr/libexec/p11-kit/p11-kit-server", "p11-kit")
	if err != nil {
		return err
	}
	if err := os.Remove(t.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	t.server, err = t.stage.ps.start("token-"+t.Label, t.Env[:1], program, "--foreground", "--name", t.socket,
		"--provider", t.soft, "pkcs11:token="+t.Label)
	if err != nil {
		return err
	}
	_, err = Poll(ctx, "the server of token "+t.Label, func() (struct{}, bool, error) {
		conn, err := net.Dial("unix", t.socket)
		if err == nil {
			return struct{}{}, true, conn.Close()
		}
		return struct{}{}, false, t.server.ended()
	})
	return err
}

// Kill ends the server and its children, one a connection, as a power failure
// of an HSM would.
func (t *Token) Kill() {
	_ = syscall.Kill(-t.server.cmd.Process.Pid, syscall.SIGKILL)
	<-t.server.done
}

// installed finds a file that a Debian package brings.
func installed(pattern, debianPackage string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("stage: %s is missing: install %s", pattern, debianPackage)
	}
	return found[0], nil
}
