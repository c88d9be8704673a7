"""Starts moto on a free port of loopback, makes CMKs and users in it, then has it check signatures and permissions.

Writes to --ready FILE, once it is: {"endpoint": ..., "region": ..., "keys": [ARN...], "users": [{"name", "access_key_id", "secret_access_key"}...],
"administrator": {...}}. Every user may use every key, but for the last one, who may use none; the administrator makes, disables and ends keys, and may
use none.
"""
import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time

import boto3

REGION = "eu-central-1"
ACTIONS = [
    "kms:GenerateDataKey", "kms:GenerateRandom", "kms:Decrypt", "kms:Encrypt", "kms:ReEncrypt*", "kms:DescribeKey",
    "kms:RotateKeyOnDemand",
]
ADMINISTRATION = ["kms:CreateKey", "kms:DisableKey", "kms:EnableKey", "kms:ScheduleKeyDeletion"]


def client(service, endpoint):
    return boto3.client(
        service, region_name=REGION, endpoint_url=endpoint, aws_access_key_id="setup", aws_secret_access_key="setup"
    )


def make_user(iam, name, actions):
    """In three calls; moto knows no resource but "*" for KMS."""
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    iam.create_user(UserName=name)
    iam.put_user_policy(
        UserName=name,
        PolicyName="keyring",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return {"name": name, "access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--users", type=int, default=3)
    arguments.add_argument("--keys", type=int, default=2)
    arguments.add_argument("--ready", required=True)
    arguments = arguments.parse_args()
    # Ends with SIGTERM, and with whoever started it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parent = os.getppid()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The calls that set it up are not checked, all after them are.
    setup = arguments.keys + 3 * (arguments.users + 1)
    moto = subprocess.Popen(
        [os.path.join(os.path.dirname(sys.executable), "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(setup), "MOTO_ALLOW_NONEXISTENT_REGION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if moto.poll() is not None:
                sys.exit("moto_server ended")
            time.sleep(0.05)
        kms, iam = client("kms", endpoint), client("iam", endpoint)
        keys = [kms.create_key()["KeyMetadata"]["Arn"] for _ in range(arguments.keys)]
        permitted = [ACTIONS] * (arguments.users - 1) + [["iam:GetUser"]]
        users = [make_user(iam, f"keyring-{number}", actions) for number, actions in enumerate(permitted)]
        ready = {
            "endpoint": endpoint,
            "region": REGION,
            "keys": keys,
            "users": users,
            "administrator": make_user(iam, "administrator", ADMINISTRATION),
        }
        descriptor = os.open(arguments.ready + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(ready, file)
        os.rename(arguments.ready + ".new", arguments.ready)
        while os.getppid() == parent and moto.poll() is None:
            time.sleep(0.2)
    finally:
        moto.terminate()
        moto.wait()


main()
