// SPDX-License-Identifier: Apache-2.0

// Command demo shows the main job of Valise on one machine, on real parts: two
// officials with (virtual) PIV cards are enrolled after attestation by an authority
// whose keys are in a PKCS#11 token, and exchange sealed texts and files through a
// QUIC gateway while cards are pulled and the gateway is killed. Two officers sign a
// policy, and SECRET goes to whoever is cleared for it and to nobody else. Then intruders come,
// each beside an honest control. At the end a separate program, demo/check, compares what
// was received with what was sent.
//
//	make demo                         everything; exit status 1 unless all went as it must
//	make demo KEEP=1                  leaves it running and says how to chat in two terminals
//	DEMO_SABOTAGE=drop make demo      loses a message on purpose: the demo must notice (status 1)
//	DEMO_SABOTAGE=dup  …              delivers one twice
//	DEMO_SABOTAGE=flip …              changes one bit of the received file
//	DEMO_SABOTAGE=mark …              changes a marking; leak shows Bob what he is not cleared for;
//	                                  silent takes the reason of a refusal out of the audit stream
//	DEMO_SABOTAGE=admit …             lets an intruder in, by giving it what it must not have
//	DEMO_SHORT=1                      fewer messages, a smaller file: for the tests
//
// The last line is
//
//	demo: ok: M messages and F files delivered, 0 lost, 0 duplicated, I intruders refused
//
// The commands are taken from the folder of this program. The demo knows no
// shortcut: everything that officials, officers and operators do goes through
// the commands that they would type.
package main
