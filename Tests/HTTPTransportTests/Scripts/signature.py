"""Checks AWS Signature Version 4 with botocore's signer: answers 200 where the request's signature is the one that botocore makes for what was
received, else 403 with the reason. Credentials come from a file: a JSON object of access key id to [secret, token, region, service]."""

import datetime
import json
import sys

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from listening import Request, response, serve

with open(sys.argv[1], encoding="utf-8") as file:
    accounts = json.load(file)

# What libcurl adds of its own accord: nothing that a server acts on.
UNSIGNED = {"authorization", "accept", "user-agent", "content-length"}


def fault(request):
    """Why the request is refused; None where it is signed as botocore would."""
    algorithm, fields = request.header("authorization").split(" ", 1)
    if algorithm != "AWS4-HMAC-SHA256":
        return "algorithm"
    fields = dict(field.split("=", 1) for field in fields.split(", "))
    key_id, date, region, service, kind = fields["Credential"].split("/")
    if key_id not in accounts:
        return "unknown access key id"
    secret, token, expected_region, expected_service = accounts[key_id]
    if (region, service, kind) != (expected_region, expected_service, "aws4_request"):
        return "scope"
    if request.header("x-amz-security-token") != token:
        return "token"
    signed = fields["SignedHeaders"].split(";")
    names = {name.lower() for name, _ in request.headers}
    if names - UNSIGNED != set(signed):
        return f"headers: {sorted(names)} but signed {signed}"
    timestamp = request.header("x-amz-date")
    then = datetime.datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    if abs((datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()) > 60 or timestamp[:8] != date:
        return "time"
    received = AWSRequest(
        method=request.method,
        url=f"http://{request.header('host')}{request.target}",
        data=request.body,
        headers={name: value for name, value in request.headers if name.lower() in signed},
    )
    received.context["timestamp"] = timestamp
    signer = SigV4Auth(Credentials(key_id, secret, token), service, region)
    canonical = signer.canonical_request(received)
    signature = signer.signature(signer.string_to_sign(received, canonical), received)
    return None if signature == fields["Signature"] else f"signature of {canonical}"


def handle(connection):
    with connection.makefile("rb") as stream:
        while (request := Request(stream)).is_there:
            reason = fault(request)
            connection.sendall(response(200) if reason is None else response(403, reason.encode()))


serve(handle)
