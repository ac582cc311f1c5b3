#!/usr/bin/python3
"""Checks a compact JWS with an independent JOSE library (Debian's python3-jwcrypto).

usage: jose_verify.py JWKS.json < token

Prints the claims as JSON and exits 0 when the key that kid names signed it, else says
why on stderr and exits 1. Judges signature and form only: no times, no audience. It is
the second opinion on what client/lib/jws.c signs and accepts.
"""
import json
import sys

from jwcrypto import jwk, jws
from jwcrypto.common import JWException


def verify(keys, token):
    signed = jws.JWS()
    signed.allowed_algs = ["EdDSA"]
    signed.deserialize(token)
    header = signed.jose_header
    key = keys.get_key(header.get("kid"))
    if key is None:
        raise ValueError("kid %r is not in the key set" % header.get("kid"))
    if key.thumbprint() != header["kid"]:
        raise ValueError("kid is not the key's RFC 7638 thumbprint")
    signed.verify(key)
    return json.loads(signed.payload)


def main():
    if len(sys.argv) != 2:
        sys.stderr.write(__doc__)
        return 2
    try:
        with open(sys.argv[1], encoding="utf-8") as f:
            keys = jwk.JWKSet.from_json(f.read())
        claims = verify(keys, sys.stdin.read().strip())
    except (OSError, ValueError, JWException) as why:
        sys.stderr.write("jose_verify: %s\n" % (why or type(why).__name__))
        return 1
    print(json.dumps(claims))
    return 0


if __name__ == "__main__":
    sys.exit(main())
