"""Starts moto on a free port of loopback, makes CMKs and users in it, then has it check signatures and permissions.

Prints {"endpoint": ..., "region": ..., "keys": [ARN...], "users": [{"name", "access_key_id", "secret_access_key"}...]}.
User 0 may use every key; user N > 0 may use key N only;
the last user may use none.
"""
import argparse
import json
import os
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


def client(service, endpoint):
    return boto3.client(
        service, region_name=REGION, endpoint_url=endpoint, aws_access_key_id="setup", aws_secret_access_key="setup"
    )


def policy(number, keys, users):
    if number == users - 1:
        statements = [{"Effect": "Allow", "Action": "iam:GetUser", "Resource": "*"}]
    elif number == 0:
        statements = [{"Effect": "Allow", "Action": ACTIONS, "Resource": "*"}]
    else:
        statements = [
            {"Effect": "Allow", "Action": ACTIONS, "Resource": keys[number % len(keys)]},
            {"Effect": "Allow", "Action": "kms:GenerateRandom", "Resource": "*"},
        ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--users", type=int, default=3)
    arguments.add_argument("--keys", type=int, default=2)
    arguments = arguments.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The calls that set it up are not checked, all after them are.
    setup = arguments.keys + 3 * arguments.users
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
        users = []
        for number in range(arguments.users):
            name = f"keyring-{number}"
            iam.create_user(UserName=name)
            iam.put_user_policy(
                UserName=name, PolicyName="keyring", PolicyDocument=policy(number, keys, arguments.users)
            )
            made = iam.create_access_key(UserName=name)["AccessKey"]
            users.append(
                {"name": name, "access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
            )
        print(json.dumps({"endpoint": endpoint, "region": REGION, "keys": keys, "users": users}), flush=True)
        sys.stdin.read()
    finally:
        moto.terminate()
        moto.wait()


main()
