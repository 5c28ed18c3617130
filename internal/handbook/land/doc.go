// SPDX-License-Identifier: Apache-2.0

// Package land plays documents on machines of their own: one for each name before a
// prompt, with its own /etc, /var, home, network and processes, joined by a network
// with a /etc/hosts that all share.
//
//	l, err := land.New(ctx, land.Config{Bin: "bin", Project: ".", Table: table, Machines: machines})
//	defer l.Close()
//	err = l.Play(ctx, step)
//
// A command that only shows what others have done is typed again until it shows it, as
// a person would: news takes a moment from one machine to another.
//
// What a machine lacks of a real one is written here, and nothing else is: everybody is
// root there, systemctl and journalctl are played (a unit's daemon is started as its
// ExecStart says, from packaging/), cards are virtual ones in a pcscd beside the machine,
// and /media/stick is one folder for all. Programs, daemons, tokens, terminals and PIN
// prompts are the real ones.
//
// It takes the right to make namespaces. Never run it on a machine whose own Valise
// matters before reading what the documents do: they run as they stand.
package land
