// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"testing"
)

// RFC 9420, Appendix C.
func TestVectorsTreeMath(t *testing.T) {
	type vector struct {
		Leaves                       uint32 `json:"n_leaves"`
		Nodes                        uint32 `json:"n_nodes"`
		Root                         nodeIndex
		Left, Right, Parent, Sibling []*nodeIndex
	}
	vectors(t, "tree-math", nil, func(t *testing.T, v *vector) {
		if nodeWidth(v.Leaves) != v.Nodes || rootOf(v.Leaves) != v.Root {
			t.Fatalf("width %d root %d", nodeWidth(v.Leaves), rootOf(v.Leaves))
		}
		for i := range nodeIndex(v.Nodes) {
			check := func(what string, want *nodeIndex, exists bool, get func() nodeIndex) {
				if exists != (want != nil) {
					t.Fatalf("%s of %d: exists %v", what, i, exists)
				}
				if exists && get() != *want {
					t.Fatalf("%s of %d: got %d, want %d", what, i, get(), *want)
				}
			}
			check("left", v.Left[i], !i.isLeaf(), i.left)
			check("right", v.Right[i], !i.isLeaf(), i.right)
			check("parent", v.Parent[i], i != v.Root, i.parent)
			check("sibling", v.Sibling[i], i != v.Root, i.sibling)
		}
	})
}

// RFC 9420, Section 2.1.2.
func TestVectorsDeserialization(t *testing.T) {
	type vector struct {
		Header hexBytes `json:"vlbytes_header"`
		Length int
	}
	vectors(t, "deserialization", nil, func(t *testing.T, v *vector) {
		r := reader{b: v.Header}
		if n := r.length(); n != v.Length || !r.ok() {
			t.Fatalf("got %d, want %d", n, v.Length)
		}
		equal(t, "encoding", appendLength(nil, v.Length), v.Header)
	})
}

// RFC 9420, Sections 5.1, 5.2, 8 and 9.1.
func TestVectorsCryptoBasics(t *testing.T) {
	type labelled struct {
		Secret, Out hexBytes
		Label       string
		Context     hexBytes
		Generation  uint32
		Length      int
	}
	type vector struct {
		header
		RefHash struct {
			Label      string
			Value, Out hexBytes
		} `json:"ref_hash"`
		Expand labelled `json:"expand_with_label"`
		Derive labelled `json:"derive_secret"`
		Tree   labelled `json:"derive_tree_secret"`
		Sign   struct {
			Priv, Pub, Content, Signature hexBytes
			Label                         string
		} `json:"sign_with_label"`
		Encrypt struct {
			Priv, Pub, Context, Plaintext, Ciphertext hexBytes
			KEMOutput                                 hexBytes `json:"kem_output"`
			Label                                     string
		} `json:"encrypt_with_label"`
	}
	vectors(t, "crypto-basics", func(v *vector) Suite { return v.Suite }, func(t *testing.T, v *vector) {
		s := v.params(t)
		equal(t, "ref_hash", s.refHash(v.RefHash.Label, v.RefHash.Value), v.RefHash.Out)
		equal(t, "expand", s.expandWithLabel(v.Expand.Secret, v.Expand.Label, v.Expand.Context, v.Expand.Length), v.Expand.Out)
		equal(t, "derive", s.deriveSecret(v.Derive.Secret, v.Derive.Label), v.Derive.Out)
		equal(t, "tree", s.deriveTreeSecret(v.Tree.Secret, v.Tree.Label, v.Tree.Generation, v.Tree.Length), v.Tree.Out)
		must(t, s.verifyWithLabel(v.Sign.Pub, v.Sign.Label, v.Sign.Content, v.Sign.Signature))
		sig, err := s.signWithLabel(signerFrom(t, s, v.Sign.Priv), v.Sign.Label, v.Sign.Content)
		must(t, err)
		must(t, s.verifyWithLabel(v.Sign.Pub, v.Sign.Label, v.Sign.Content, sig))
		priv, err := s.parsePrivKey(v.Encrypt.Priv)
		must(t, err)
		got, err := s.decryptWithLabel(priv.key, v.Encrypt.Label, v.Encrypt.Context,
			hpkeCiphertext{v.Encrypt.KEMOutput, v.Encrypt.Ciphertext})
		must(t, err)
		equal(t, "plaintext", got, v.Encrypt.Plaintext)
		c, err := s.encryptWithLabel(v.Encrypt.Pub, v.Encrypt.Label, v.Encrypt.Context, v.Encrypt.Plaintext)
		must(t, err)
		got, err = s.decryptWithLabel(priv.key, v.Encrypt.Label, v.Encrypt.Context, c)
		must(t, err)
		equal(t, "round trip", got, v.Encrypt.Plaintext)
	})
}

// RFC 9420, Sections 6 to 12: every structure decodes, and encodes to itself.
func TestVectorsMessages(t *testing.T) {
	vectors(t, "messages", nil, func(t *testing.T, v *map[string]hexBytes) {
		m := *v
		wire := func(name string, want WireFormat) {
			msg := identityMarshal(t, name, m[name], readMessage, (*mlsMessage).marshal)
			if msg.wire != want {
				t.Fatalf("%s: wire format %d", name, msg.wire)
			}
		}
		wire("mls_welcome", WireWelcome)
		wire("mls_group_info", WireGroupInfo)
		wire("mls_key_package", WireKeyPackage)
		wire("public_message_application", WirePublicMessage)
		wire("public_message_proposal", WirePublicMessage)
		wire("public_message_commit", WirePublicMessage)
		wire("private_message", WirePrivateMessage)
		identityMarshal(t, "ratchet_tree", m["ratchet_tree"],
			func(r *reader) *tree { return readTree(suiteTable[0], r) }, func(x *tree) []byte { return x.append(nil) })
		identityMarshal(t, "group_secrets", m["group_secrets"], readGroupSecrets, (*groupSecrets).marshal)
		identityMarshal(t, "commit", m["commit"], readCommit, func(x *commit) []byte { return x.append(nil) })
		for name, typ := range map[string]ProposalType{
			"add_proposal": ProposalAdd, "update_proposal": ProposalUpdate, "remove_proposal": ProposalRemove,
			"pre_shared_key_proposal": ProposalPSK, "re_init_proposal": ProposalReInit,
			"external_init_proposal": ProposalExternalInit, "group_context_extensions_proposal": ProposalGroupContextExtensions,
		} {
			identityMarshal(t, name, append(appendU16(nil, uint16(typ)), m[name]...), readProposal,
				func(x *Proposal) []byte { return x.append(nil) })
		}
	})
}

// RFC 9420, Section 8.
func TestVectorsKeySchedule(t *testing.T) {
	type epoch struct {
		CommitSecret    hexBytes `json:"commit_secret"`
		PSKSecret       hexBytes `json:"psk_secret"`
		TreeHash        hexBytes `json:"tree_hash"`
		Confirmed       hexBytes `json:"confirmed_transcript_hash"`
		GroupContext    hexBytes `json:"group_context"`
		Joiner          hexBytes `json:"joiner_secret"`
		Welcome         hexBytes `json:"welcome_secret"`
		Init            hexBytes `json:"init_secret"`
		SenderData      hexBytes `json:"sender_data_secret"`
		Encryption      hexBytes `json:"encryption_secret"`
		ExporterSecret  hexBytes `json:"exporter_secret"`
		Authenticator   hexBytes `json:"epoch_authenticator"`
		External        hexBytes `json:"external_secret"`
		ConfirmationKey hexBytes `json:"confirmation_key"`
		MembershipKey   hexBytes `json:"membership_key"`
		Resumption      hexBytes `json:"resumption_psk"`
		ExternalPub     hexBytes `json:"external_pub"`
		Exporter        struct {
			Label           string
			Context, Secret hexBytes
			Length          int
		}
	}
	type vector struct {
		header
		GroupID hexBytes `json:"group_id"`
		Initial hexBytes `json:"initial_init_secret"`
		Epochs  []epoch
	}
	vectors(t, "key-schedule", func(v *vector) Suite { return v.Suite }, func(t *testing.T, v *vector) {
		s, init := v.params(t), []byte(v.Initial)
		for i, e := range v.Epochs {
			ctx := groupContext{suite: v.Suite, groupID: v.GroupID, epoch: uint64(i), treeHash: e.TreeHash, confirmed: e.Confirmed}
			context := ctx.marshal()
			equal(t, "group_context", context, e.GroupContext)
			j := s.newJoiner(init, e.CommitSecret, e.PSKSecret, context)
			equal(t, "joiner", j.secret, e.Joiner)
			equal(t, "welcome", j.welcome, e.Welcome)
			got, encryption := j.epoch(context)
			equal(t, "encryption", encryption, e.Encryption)
			equal(t, "init", got.initSecret, e.Init)
			equal(t, "sender data", got.senderData, e.SenderData)
			equal(t, "exporter", got.exporter, e.ExporterSecret)
			equal(t, "authenticator", got.authenticator, e.Authenticator)
			equal(t, "external", got.external, e.External)
			equal(t, "confirm", got.confirmationKey, e.ConfirmationKey)
			equal(t, "membership", got.membershipKey, e.MembershipKey)
			equal(t, "resumption", got.resumption, e.Resumption)
			pub, err := got.externalPub(s)
			must(t, err)
			equal(t, "external_pub", pub, e.ExternalPub)
			equal(t, "export", got.export(s, e.Exporter.Label, e.Exporter.Context, e.Exporter.Length), e.Exporter.Secret)
			init = got.initSecret
		}
	})
}

// RFC 9420, Section 8.4.
func TestVectorsPSKSecret(t *testing.T) {
	type vector struct {
		header
		PSKs []struct {
			ID    hexBytes `json:"psk_id"`
			PSK   hexBytes
			Nonce hexBytes `json:"psk_nonce"`
		}
		Secret hexBytes `json:"psk_secret"`
	}
	vectors(t, "psk_secret", func(v *vector) Suite { return v.Suite }, func(t *testing.T, v *vector) {
		var psks []psk
		for _, p := range v.PSKs {
			psks = append(psks, psk{PSKID{Type: PSKExternal, ID: p.ID, Nonce: p.Nonce}, p.PSK})
		}
		equal(t, "psk_secret", v.params(t).pskSecret(psks), v.Secret)
	})
}

// RFC 9420, Sections 6.3.2 and 9: each key comes out once, in any order.
func TestVectorsSecretTree(t *testing.T) {
	type vector struct {
		header
		Encryption hexBytes `json:"encryption_secret"`
		SenderData struct {
			Secret                 hexBytes `json:"sender_data_secret"`
			Ciphertext, Key, Nonce hexBytes
		} `json:"sender_data"`
		Leaves [][]struct {
			Generation uint32
			AppKey     hexBytes `json:"application_key"`
			AppNonce   hexBytes `json:"application_nonce"`
			HSKey      hexBytes `json:"handshake_key"`
			HSNonce    hexBytes `json:"handshake_nonce"`
		}
	}
	vectors(t, "secret-tree", func(v *vector) Suite { return v.Suite }, func(t *testing.T, v *vector) {
		s := v.params(t)
		k := s.senderDataKey(v.SenderData.Secret, v.SenderData.Ciphertext)
		equal(t, "sender data key", k.key, v.SenderData.Key)
		equal(t, "sender data nonce", k.nonce, v.SenderData.Nonce)
		st := newSecretTree(s, 0, fullWidth(uint32(len(v.Leaves))), v.Encryption)
		for l, gens := range v.Leaves {
			for i := range gens {
				g := gens[len(gens)-1-i] // from the last: the others are skipped and kept
				for _, c := range []struct {
					typ        ContentType
					key, nonce []byte
				}{{ContentApplication, g.AppKey, g.AppNonce}, {ContentProposal, g.HSKey, g.HSNonce}} {
					u, err := st.take(ratchetFor(LeafIndex(l), c.typ), g.Generation)
					must(t, err)
					equal(t, "key", u.key, c.key)
					equal(t, "nonce", u.nonce, c.nonce)
					u.consume()
					if _, err := st.take(ratchetFor(LeafIndex(l), c.typ), g.Generation); err == nil {
						t.Fatal("a used key came out again")
					}
				}
			}
		}
	})
}

// RFC 9420, Section 8.2.
func TestVectorsTranscriptHashes(t *testing.T) {
	type vector struct {
		header
		Key            hexBytes `json:"confirmation_key"`
		Content        hexBytes `json:"authenticated_content"`
		InterimBefore  hexBytes `json:"interim_transcript_hash_before"`
		ConfirmedAfter hexBytes `json:"confirmed_transcript_hash_after"`
		InterimAfter   hexBytes `json:"interim_transcript_hash_after"`
	}
	vectors(t, "transcript-hashes", func(v *vector) Suite { return v.Suite }, func(t *testing.T, v *vector) {
		s := v.params(t)
		ac := identityMarshal(t, "content", v.Content, readAuthContent, (*authContent).marshal)
		confirmed := s.confirmedHash(v.InterimBefore, ac)
		equal(t, "confirmed", confirmed, v.ConfirmedAfter)
		equal(t, "interim", s.interimHash(confirmed, ac.confirmationTag), v.InterimAfter)
		e := epochSecrets{confirmationKey: v.Key}
		equal(t, "tag", e.confirmationTag(s, confirmed), ac.confirmationTag)
	})
}
