// SPDX-License-Identifier: Apache-2.0

// The peer that the Go tests drive: any number of ts-mls clients in one process.
// Each line of its input is a request, a JSON object with an operation ("do"),
// the client's name and the operation's fields; each line of its output is the
// answer, {"ok": …} or {"error": "…"}, in the order of the requests. Bytes are
// in base64. A client whose operation fails keeps the state that it had.

import { X509Certificate } from "node:crypto";
import { createInterface } from "node:readline";
import {
  acceptAll, ciphersuites, createApplicationMessage, createCommit, createGroup,
  createGroupInfoWithExternalPub, createGroupInfoWithExternalPubAndRatchetTree, createProposal, decodeMlsMessage,
  defaultCapabilities, defaultCryptoProvider, defaultKeyPackageEqualityConfig, defaultKeyRetentionConfig,
  defaultLifetime, defaultPaddingConfig, encodeMlsMessage, encodeRequiredCapabilities, generateKeyPackage,
  generateKeyPackageWithKey, getCiphersuiteFromName, joinGroup, joinGroupExternal, makePskIndex, mlsExporter,
  processMessage,
} from "ts-mls";
import { encode } from "ts-mls/codec/tlsEncoder.js";
import { decodeVarLenData, varLenDataEncoder } from "ts-mls/codec/variableLength.js";
import { decodeRatchetTree, encodeRatchetTree } from "ts-mls/ratchetTree.js";
import { hybridSuite } from "./hybrid.mjs";

const clients = new Map();
const from64 = (s) => new Uint8Array(Buffer.from(s ?? "", "base64"));
const to64 = (b) => (b === undefined ? undefined : Buffer.from(b).toString("base64"));
const same = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0;

async function suiteImpl(suite) {
  const name = Object.keys(ciphersuites).find((n) => ciphersuites[n] === suite);
  return name === undefined ? hybridSuite(suite) : defaultCryptoProvider.getCiphersuiteImpl(getCiphersuiteFromName(name));
}

// message decodes an MLSMessage of the wire format named, to its last byte.
function message(data, ...formats) {
  const b = from64(data);
  const decoded = decodeMlsMessage(b, 0);
  if (decoded === undefined || decoded[1] !== b.length) throw new Error("message does not decode");
  if (!formats.includes(decoded[0].wireformat)) throw new Error(`message is a ${decoded[0].wireformat}`);
  return decoded[0];
}

// ts-mls 1.6.4 reads and writes the external_pub extension as the bare key. RFC
// 9420, Section 12.4.3.2 has a struct of one HPKEPublicKey there, which is a
// vector with its length. These two suites differ at that one place only: one is
// for reading a GroupInfo, the other for making one.
const withHPKE = (cs, changes) => ({ ...cs, hpke: { ...cs.hpke, ...changes } });

function readingExternalPub(cs, groupInfo) {
  const vector = groupInfo.extensions.find((e) => e.extensionType === "external_pub")?.extensionData;
  if (vector === undefined) return cs;
  const decoded = decodeVarLenData(vector, 0);
  if (decoded === undefined || decoded[1] !== vector.length) throw new Error("external_pub does not decode");
  return withHPKE(cs, { importPublicKey: (key) => cs.hpke.importPublicKey(key === vector ? decoded[0] : key) });
}

function writingExternalPub(cs) {
  return withHPKE(cs, { exportPublicKey: async (key) => encode(varLenDataEncoder)(await cs.hpke.exportPublicKey(key)) });
}

const encoded = (content) => to64(encodeMlsMessage({ version: "mls10", ...content }));

function tree(data) {
  if (!data) return undefined;
  const b = from64(data);
  const decoded = decodeRatchetTree(b, 0);
  if (decoded === undefined || decoded[1] !== b.length) throw new Error("ratchet tree does not decode");
  return decoded[0];
}

// service approves credentials as the Go side does: a basic one by its prefix,
// a certificate by the root that signed it and by the key that it holds.
function service(root) {
  return {
    async validateCredential(credential, signatureKey) {
      if (credential.credentialType === "basic") {
        return Buffer.from(credential.identity).toString().startsWith("member ");
      }
      const leaf = new X509Certificate(credential.certificates[0]);
      const issuer = new X509Certificate(from64(root));
      const { x, y, crv } = leaf.publicKey.export({ format: "jwk" });
      const key = crv === "Ed25519" ? Buffer.from(x, "base64url")
        : Buffer.concat([Buffer.of(4), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")]);
      return leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey) && same(key, signatureKey);
    },
  };
}

function clientConfig(root) {
  return {
    keyRetentionConfig: defaultKeyRetentionConfig,
    keyPackageEqualityConfig: defaultKeyPackageEqualityConfig,
    paddingConfig: defaultPaddingConfig,
    lifetimeConfig: { maximumTotalLifetime: 100n * 24n * 3600n, validateLifetimeOnReceive: true },
    authService: service(root),
  };
}

function capabilities(suite) {
  const c = defaultCapabilities();
  return { ...c, ciphersuites: [...c.ciphersuites, String(suite)] };
}

function credentialOf(q) {
  return q.certificates
    ? { credentialType: "x509", certificates: q.certificates.map(from64) }
    : { credentialType: "basic", identity: new TextEncoder().encode(q.identity) };
}

const lifetimeOf = (q) => (q.notAfter ? { notBefore: BigInt(q.notBefore), notAfter: BigInt(q.notAfter) } : defaultLifetime);

const index = (c, psks) =>
  makePskIndex(c.state, Object.fromEntries(Object.entries(psks ?? {}).map(([id, psk]) => [id, from64(psk)])));

// proposals turns a request's lists into proposals.
function proposals(c, q) {
  const psk = (id) => ({
    proposalType: "psk",
    psk: { preSharedKeyId: { psktype: "external", pskId: from64(id), pskNonce: c.cs.rng.randomBytes(c.cs.kdf.size) } },
  });
  return [
    ...(q.add ?? []).map((kp) => ({ proposalType: "add", add: { keyPackage: message(kp, "mls_key_package").keyPackage } })),
    ...(q.remove ?? []).map((removed) => ({ proposalType: "remove", remove: { removed } })),
    ...(q.psk ?? []).map(psk),
  ];
}

const operations = {
  // key package under a signature key that is handed in, or (own) one that
  // ts-mls makes itself
  async new(_, q) {
    const cs = await suiteImpl(q.suite);
    const keys = { signKey: from64(q.signKey), publicKey: from64(q.publicKey) };
    const args = [credentialOf(q), capabilities(q.suite), lifetimeOf(q), []];
    const kp = q.own ? await generateKeyPackage(...args, cs) : await generateKeyPackageWithKey(...args, keys, cs);
    const c = { cs, kp, psks: q.psks, config: clientConfig(q.root) };
    clients.set(q.client, c);
    return { message: encoded({ wireformat: "mls_key_package", keyPackage: kp.publicPackage }) };
  },
  async create(c, q) {
    const extensions = q.required
      ? [{ extensionType: "required_capabilities", extensionData: encodeRequiredCapabilities({ extensionTypes: [], proposalTypes: [], credentialTypes: [q.required] }) }]
      : [];
    c.state = await createGroup(from64(q.group), c.kp.publicPackage, c.kp.privatePackage, extensions, c.cs, c.config);
    return {};
  },
  async join(c, q) {
    const { welcome } = message(q.message, "mls_welcome");
    c.state = await joinGroup(welcome, c.kp.publicPackage, c.kp.privatePackage, index(c, c.psks), c.cs, tree(q.tree), undefined, c.config);
    return {};
  },
  async info(c, q) {
    const make = q.withTree ? createGroupInfoWithExternalPubAndRatchetTree : createGroupInfoWithExternalPub;
    const groupInfo = await make(c.state, [], writingExternalPub(c.cs));
    return { message: encoded({ wireformat: "mls_group_info", groupInfo }), tree: to64(encodeRatchetTree(c.state.ratchetTree)) };
  },
  async external(c, q) {
    const { groupInfo } = message(q.message, "mls_group_info");
    const { publicMessage, newState } = await joinGroupExternal(
      groupInfo, c.kp.publicPackage, c.kp.privatePackage, q.resync === true, readingExternalPub(c.cs, groupInfo), tree(q.tree), c.config, from64(q.data));
    c.state = newState;
    return { message: encoded({ wireformat: "mls_public_message", publicMessage }) };
  },
  async commit(c, q) {
    const done = await createCommit(
      { state: c.state, cipherSuite: c.cs, pskIndex: index(c, c.psks) },
      { wireAsPublicMessage: !q.private, extraProposals: proposals(c, q), ratchetTreeExtension: q.withTree === true, authenticatedData: from64(q.data) });
    c.state = done.newState;
    return {
      message: to64(encodeMlsMessage(done.commit)),
      welcome: done.welcome && encoded({ wireformat: "mls_welcome", welcome: done.welcome }),
      tree: to64(encodeRatchetTree(c.state.ratchetTree)),
    };
  },
  async propose(c, q) {
    const done = await createProposal(c.state, !q.private, proposals(c, q)[0], c.cs);
    c.state = done.newState;
    return { message: to64(encodeMlsMessage(done.message)) };
  },
  async encrypt(c, q) {
    const done = await createApplicationMessage(c.state, from64(q.text), c.cs, from64(q.data));
    c.state = done.newState;
    return { message: encoded({ wireformat: "mls_private_message", privateMessage: done.privateMessage }) };
  },
  async receive(c, q) {
    const m = message(q.message, "mls_public_message", "mls_private_message");
    const done = await processMessage(m, c.state, index(c, c.psks), acceptAll, c.cs);
    c.state = done.newState;
    return { kind: done.kind, text: done.kind === "applicationMessage" ? to64(done.message) : undefined };
  },
  async status(c, q) {
    const exported = await mlsExporter(c.state.keySchedule.exporterSecret, q.label, from64(q.data), 32, c.cs);
    return {
      epoch: Number(c.state.groupContext.epoch),
      leaf: c.state.privatePath.leafIndex,
      active: c.state.groupActiveState.kind === "active",
      authenticator: to64(c.state.keySchedule.epochAuthenticator),
      exported: to64(exported),
      keys: c.state.ratchetTree.filter((n) => n?.nodeType === "leaf").map((n) => to64(n.leaf.signaturePublicKey)),
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const q = JSON.parse(line);
    if (!Object.hasOwn(operations, q.do)) throw new Error(`unknown operation ${q.do}`);
    const c = clients.get(q.client);
    if (c === undefined && q.do !== "new") throw new Error(`unknown client ${q.client}`);
    answer = { ok: await operations[q.do](c, q) };
  } catch (e) {
    answer = { error: `${e?.name ?? "Error"}: ${e?.message ?? e}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
