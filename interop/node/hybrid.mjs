// SPDX-License-Identifier: Apache-2.0

// A crypto provider for ts-mls that has the hybrid suite: KEM MLKEM1024-P384
// (HPKE number 0x0051, draft-ietf-hpke-pq) from @noble/post-quantum, under the
// HPKE of @hpke/core. Hash, KDF and AEAD are those that ts-mls has for suite 7
// (Node's WebCrypto); signatures are Node's own ECDSA.

import { createECDH, createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { Aes256Gcm, CipherSuite, HkdfSha384 } from "@hpke/core";
import { shake256 } from "@noble/hashes/sha3.js";
import { ml_kem1024_p384 as kem } from "@noble/post-quantum/hybrid.js";
import { defaultCryptoProvider, getCiphersuiteFromName } from "ts-mls";
import { makeGenericHpke } from "ts-mls/crypto/implementation/hpke.js";

const number = 0x0051;
const bytes = (data) => new Uint8Array(ArrayBuffer.isView(data) ? data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) : data);
const buffer = (data) => bytes(data).buffer;

// checked refuses what has another length than the KEM's encoding.
function checked(data, length, what) {
  const b = bytes(data);
  if (b.length !== length) throw new Error(`${what} has ${b.length} bytes, not ${length}`);
  return b;
}

// deriveSeed is LabeledDerive of SHAKE256, the KDF that the draft gives to
// this KEM's DeriveKeyPair whatever the suite's own KDF is.
function deriveSeed(ikm) {
  const ascii = (s) => new TextEncoder().encode(s);
  const u16 = (n) => Uint8Array.of(n >> 8, n & 255);
  const label = ascii("DeriveKeyPair");
  const size = kem.lengths.seed;
  return shake256
    .create({ dkLen: size })
    .update(bytes(ikm))
    .update(ascii("HPKE-v1"))
    .update(ascii("KEM"))
    .update(u16(number))
    .update(u16(label.length))
    .update(label)
    .update(u16(size))
    .digest();
}

// pair wraps a key pair in objects, which HPKE passes through unread. A private
// key is its 32-byte seed.
function pair(seed) {
  const { publicKey } = kem.keygen(seed);
  return { publicKey: { type: "public", data: publicKey }, privateKey: { type: "private", data: seed } };
}

const mlkem1024p384 = {
  id: number,
  secretSize: 32,
  encSize: kem.lengths.cipherText,
  publicKeySize: kem.lengths.publicKey,
  privateKeySize: kem.lengths.seed,
  async serializePublicKey(key) {
    return buffer(key.data);
  },
  async deserializePublicKey(data) {
    return { type: "public", data: checked(data, kem.lengths.publicKey, "public key") };
  },
  async serializePrivateKey(key) {
    return buffer(key.data);
  },
  async deserializePrivateKey(data) {
    return { type: "private", data: checked(data, kem.lengths.seed, "private key") };
  },
  async generateKeyPair() {
    return pair(crypto.getRandomValues(new Uint8Array(kem.lengths.seed)));
  },
  async deriveKeyPair(ikm) {
    return pair(deriveSeed(ikm));
  },
  async encap({ recipientPublicKey }) {
    const { cipherText, sharedSecret } = kem.encapsulate(recipientPublicKey.data);
    return { enc: buffer(cipherText), sharedSecret: buffer(sharedSecret) };
  },
  async decap({ recipientKey, enc }) {
    return buffer(kem.decapsulate(checked(enc, kem.lengths.cipherText, "encapsulation"), recipientKey.data));
  },
};

// jwk describes an uncompressed point of P-384, with the private scalar if known.
function jwk(point, scalar) {
  if (point.length !== 97 || point[0] !== 4) throw new Error("signature key is not an uncompressed point");
  const text = (b) => Buffer.from(b).toString("base64url");
  const key = { kty: "EC", crv: "P-384", x: text(point.subarray(1, 49)), y: text(point.subarray(49)) };
  return scalar === undefined ? key : { ...key, d: text(scalar) };
}

// ecdsa_secp384r1_sha384, with signatures in DER as in RFC 9420, Section 5.1.2.
const ecdsaP384 = {
  async sign(scalar, message) {
    const ecdh = createECDH("secp384r1");
    ecdh.setPrivateKey(scalar);
    const key = createPrivateKey({ key: jwk(ecdh.getPublicKey(), scalar), format: "jwk" });
    return new Uint8Array(sign("sha384", message, { key, dsaEncoding: "der" }));
  },
  async verify(point, message, signature) {
    const key = createPublicKey({ key: jwk(point), format: "jwk" });
    return verify("sha384", message, { key, dsaEncoding: "der" }, signature);
  },
  async keygen() {
    const ecdh = createECDH("secp384r1");
    const publicKey = new Uint8Array(ecdh.generateKeys());
    const scalar = ecdh.getPrivateKey();
    return { publicKey, signKey: new Uint8Array(Buffer.concat([Buffer.alloc(48 - scalar.length), scalar])) };
  },
};

// hybridSuite returns the suite under a private-use number. ts-mls names suites
// that it does not know by their numbers.
export async function hybridSuite(suite) {
  const seven = await defaultCryptoProvider.getCiphersuiteImpl(
    getCiphersuiteFromName("MLS_256_DHKEMP384_AES256GCM_SHA384_P384"),
  );
  const hpke = new CipherSuite({ kem: mlkem1024p384, kdf: new HkdfSha384(), aead: new Aes256Gcm() });
  const aead = {
    encrypt: (key, nonce, aad, plaintext) => seven.hpke.encryptAead(key, nonce, aad, plaintext),
    decrypt: (key, nonce, aad, ciphertext) => seven.hpke.decryptAead(key, nonce, aad, ciphertext),
  };
  return { ...seven, name: String(suite), signature: ecdsaP384, hpke: await makeGenericHpke({ kem: "MLKEM1024-P384" }, aead, hpke) };
}
