#!/usr/bin/env python3
"""A client of IRP/1 in Python's standard library, written from the profile's description alone.

Frames are four octets of length, big endian, and one <irp v="1" id="n"> in UTF-8 with one element in it. In clear there are
only hello and starttls; the rest is inside TLS 1.3. Keys and requests come from the openssl program, as Python makes none.

  irp_client.py --host ::1 --port 4604 --domain alpha.test --root root.pem --dir work --user alice --code CODE run

`run` does it all: enrols a device, gets an encryption certificate, renews, fetches and lists, asks for status and the list,
revokes what it had before, and is refused with it. It prints one line of JSON for each step.
"""

import argparse
import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

MAX_FRAME = 262144


class IrpError(Exception):
    def __init__(self, element):
        super().__init__(f"{element.get('code')}: {element.text or ''}")
        self.code = element.get("code")
        self.retry = element.get("retry")


class Irp:
    """A session: in clear up to starttls, then inside TLS."""

    def __init__(self, options, certificate=None, key=None):
        self.options = options
        self.socket = socket.create_connection((options.host, options.port), timeout=20)
        self.number = 0
        hello = self.ask("hello", {"domain": options.domain})
        assert hello.get("tls") == "required" and "1" in hello.get("versions").split()
        assert self.ask("starttls").tag == "proceed"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(options.root)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_hostname=options.domain)
        self.number = 0
        assert self.ask("hello", {"domain": options.domain}).get("auth") == "upa sca"

    def ask(self, name, attributes=None, text=None, children=()):
        self.number += 1
        root = ElementTree.Element("irp", {"v": "1", "id": str(self.number)})
        child = ElementTree.SubElement(root, name, attributes or {})
        child.text = text
        for inner, value in children:
            ElementTree.SubElement(child, inner).text = value
        body = ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)
        self.socket.sendall(struct.pack(">I", len(body)) + body)
        (length,) = struct.unpack(">I", self.read(4))
        assert 0 < length <= MAX_FRAME
        reply = ElementTree.fromstring(self.read(length).decode("utf-8"))
        assert reply.tag == "irp" and reply.get("v") == "1" and reply.get("id") == str(self.number), "another answer"
        (answer,) = list(reply)
        if answer.tag == "err":
            raise IrpError(answer)
        return answer

    def read(self, length):
        parts = b""
        while len(parts) < length:
            part = self.socket.recv(length - len(parts))
            if not part:
                raise EOFError("the server hung up")
            parts += part
        return parts

    def close(self):
        self.socket.close()


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


def request(path, kind):
    """A new key in PATH.key, unless there is one, and a request for it; DER in base64."""
    if not os.path.exists(path + ".key"):
        made = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        if kind == "encryption":
            made = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]
        openssl("genpkey", *made, "-out", path + ".key")
    der = openssl("req", "-new", "-key", path + ".key", "-subj", "/CN=hint", "-outform", "DER")
    return base64.b64encode(der).decode()


def store(path, element):
    """The certificates of an answer, leaf first, in PATH.pem; returns the leaf's DER."""
    ders = [base64.b64decode(one.text) for one in element.findall("x509")]
    with open(path + ".pem", "w", encoding="ascii") as file:
        for der in ders:
            file.write(ssl.DER_cert_to_PEM_cert(der))
    return ders[0]


def tell(step, **values):
    print(json.dumps({"step": step, **values}), flush=True)


def refused(code, work):
    try:
        work()
    except IrpError as error:
        assert error.code == code, f"{error.code}, not {code}"
        return True
    raise AssertionError("it was not refused")


def run(options):
    path = lambda name: os.path.join(options.dir, name)
    account = f"{options.user}@{options.domain}"

    session = Irp(options)
    refused("auth-required", lambda: session.ask("certs"))
    who = session.ask("auth", {"method": "upa"}, children=[("user", account), ("code", options.code)])
    csr = request(path("device"), "auth")
    cert = session.ask("csr", {"kind": "auth", "label": "python"}, csr)
    first = cert.get("serial")
    store(path("device"), cert)
    again = session.ask("csr", {"kind": "auth", "label": "python"}, csr)
    assert again.get("serial") == first, "issued twice for one request"
    tell("enrolled", identity=who.get("identity"), serial=first, status=cert.get("status"))
    authorities = session.ask("cacerts").findall("x509")
    session.close()

    session = Irp(options, path("device.pem"), path("device.key"))
    assert session.ask("auth", {"method": "sca"}).get("identity") == account
    encryption = session.ask("csr", {"kind": "encryption"}, request(path("encryption"), "encryption"))
    sealed = store(path("encryption"), encryption)
    tell("encryption", serial=encryption.get("serial"))
    same = session.ask("renew", {"kind": "auth", "mode": "same"}, request(path("device"), "auth"))
    assert same.get("serial") != first
    new = session.ask("renew", {"kind": "auth", "mode": "new"}, request(path("next"), "auth"))
    store(path("next"), new)
    tell("renewed", same=same.get("serial"), new=new.get("serial"))
    certs = session.ask("certs", {"kind": "auth", "status": "good"}).findall("cert")
    assert {one.get("serial") for one in certs} == {first, same.get("serial"), new.get("serial")}
    fetched = session.ask("getCert", {"sha256": hashlib.sha256(sealed).hexdigest()})
    assert base64.b64decode(fetched.findall("x509")[0].text) == sealed
    tell("fetched", serial=fetched.get("serial"), listed=len(certs))
    session.close()

    session = Irp(options, path("next.pem"), path("next.key"))
    session.ask("auth", {"method": "sca"})
    issuer = hashlib.sha256(spki(authorities[0].text)).hexdigest()
    assert session.ask("status", {"issuer": issuer, "serial": first}).get("state") == "good"
    for serial in (first, same.get("serial")):
        session.ask("revoke", {"serial": serial, "reason": "superseded"})
    status = session.ask("status", {"issuer": issuer, "serial": first})
    listed = session.ask("crl", {"issuer": issuer})
    with open(path("list.der"), "wb") as file:
        file.write(base64.b64decode(listed.text))
    shown = openssl("crl", "-inform", "DER", "-in", path("list.der"), "-noout", "-text").decode()
    assert first.upper() in shown.replace(":", "").upper()
    refused("not-found", lambda: session.ask("revoke", {"serial": "00ff", "reason": "superseded"}))
    refused("key-in-use", lambda: session.ask("csr", {"kind": "auth"}, request(path("device"), "auth")))
    tell("revoked", state=status.get("state"), reason=status.get("reason"), number=listed.get("number"))
    session.close()

    try:  # a server tells so in the handshake, or when one says who one is
        session = Irp(options, path("device.pem"), path("device.key"))
        refused("auth-failed", lambda: session.ask("auth", {"method": "sca"}))
    except (ssl.SSLError, OSError, EOFError):
        pass
    tell("shut out")


def spki(certificate):
    """The SubjectPublicKeyInfo of a certificate in base64, DER."""
    pem = ssl.DER_cert_to_PEM_cert(base64.b64decode(certificate)).encode()
    public = subprocess.run(["openssl", "x509", "-noout", "-pubkey"], input=pem, check=True, capture_output=True).stdout
    convert = ["openssl", "pkey", "-pubin", "-outform", "DER"]
    return subprocess.run(convert, input=public, check=True, capture_output=True).stdout


def main():
    parser = argparse.ArgumentParser(description="enrol by IRP/1")
    parser.add_argument("--host", default="::1")
    parser.add_argument("--port", type=int, default=4604)
    for name in ("--domain", "--root", "--dir", "--user", "--code"):
        parser.add_argument(name, required=True)
    parser.add_argument("command", choices=["run"])
    options = parser.parse_args()
    os.makedirs(options.dir, exist_ok=True)
    run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
