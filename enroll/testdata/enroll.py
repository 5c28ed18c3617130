# SPDX-License-Identifier: Apache-2.0
"""Enrolls a device with python3-acme, for the tests of package enroll.

    enroll.py DIRECTORY KID MAC DEVICE

The device's key is at the other end of standard output and input, as a card
would be: a line "attest KEY-AUTHORIZATION" is answered with an attestation
object, "csr" with a certificate signing request, both in base64url. The
library knows neither device-attest-01 nor permanent-identifier; what it lacks
is sent through its own signed requests. A problem document that it read is
printed as "problem TYPE DETAIL". The last line is "chain" and the chain, in
base64url.
"""

import sys

import josepy as jose
from acme import client, errors, messages
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.asymmetric import ec

directory_url, kid, mac, device = sys.argv[1:]


def ask(*words):
    print(*words, flush=True)
    return sys.stdin.readline().strip()


def say(error):
    print("problem", error.typ, error.detail, flush=True)


class Payload(jose.JSONDeSerializable):
    """Any JSON object as the payload of a signed request."""

    def __init__(self, **members):
        self.members = members

    def to_partial_json(self):
        return self.members

    @classmethod
    def from_json(cls, jobj):
        return cls(**jobj)


key = jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1(), default_backend()))
net = client.ClientNetwork(key, alg=jose.ES256, user_agent="valise-test")
acme = client.ClientV2(client.ClientV2.get_directory(directory_url, net), net)
if not acme.external_account_required():
    sys.exit("the directory does not ask for an external account binding")

# Without an invitation there is no account, and the library says why.
try:
    acme.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
    sys.exit("an account without an invitation")
except messages.Error as error:
    say(error)

binding = messages.ExternalAccountBinding.from_data(key.public_key(), kid, mac, acme.directory)
acme.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True, external_account_binding=binding))


def post(url, payload):
    return acme.net.post(url, payload, new_nonce_url=acme.directory["newNonce"])


def post_as_get(url):
    return post(url, None)


# An order for two devices is refused, with a subproblem for the second.
one = {"type": "permanent-identifier", "value": device}
try:
    post(acme.directory["newOrder"], Payload(identifiers=[one, {"type": "dns", "value": "example.com"}]))
    sys.exit("an order for two")
except messages.Error as error:
    say(error)

# A nonce that the library makes up is refused, and it fetches another by itself.
acme.net._nonces.clear()
acme.net._nonces.add(jose.b64decode("AAAA"))
made = post(acme.directory["newOrder"], Payload(identifiers=[one]))
order = messages.Order.from_json({**made.json(), "identifiers": []})
challenge = post_as_get(order.authorizations[0]).json()["challenges"][0]
thumbprint = jose.b64encode(key.thumbprint()).decode()
answer = ask("attest", challenge["token"] + "." + thumbprint)
done = post(challenge["url"], Payload(attObj=answer)).json()
if done["status"] != "valid":
    sys.exit("the challenge is " + done["status"])
finished = post(order.finalize, Payload(csr=ask("csr"))).json()
if finished["status"] != "valid":
    sys.exit("the order is " + finished["status"])
chain = post_as_get(finished["certificate"])
if chain.headers["Content-Type"] != "application/pem-certificate-chain":
    sys.exit("the chain is " + chain.headers["Content-Type"])

# Revoking is for officers; the library reads the problem.
try:
    post(acme.directory["revokeCert"], Payload(certificate="AAAA"))
    sys.exit("revoked by its holder")
except messages.Error as error:
    say(error)
except errors.Error as error:
    sys.exit("not a problem document: " + str(error))
print("chain", jose.b64encode(chain.content).decode(), flush=True)
