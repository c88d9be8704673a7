"""What becomes of tenants whose CMKs are disabled, deleted and replicated, before LocalStack's KMS. One line a step; status 1 at the first wrong one."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

import boto3

from processes import Failed, Server

PORT = 4566
ENDPOINT = f"http://127.0.0.1:{PORT}"
HOME, AWAY = "eu-central-1", "us-east-1"


def kms(region):
    return boto3.client(
        "kms", region_name=region, endpoint_url=ENDPOINT, aws_access_key_id="administrator", aws_secret_access_key="x"
    )


def need(condition, what):
    if not condition:
        raise Failed(what)


class Keyring:
    """keyringd in a folder of its own, with certificates for its clients."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        self.environment = {"PATH": os.environ["PATH"], "HOME": folder}
        self.run(["pki", "init", "--directory", "pki", "--trust-domain", "t.example"])
        self.run(["pki", "issue", "--directory", "pki", "server", "localhost", "127.0.0.1"])
        self.run(["pki", "issue", "--directory", "pki", "admin"])
        os.mkdir(f"{folder}/tenants", 0o700)
        self.write("root.key", "5a" * 32 + "\n")
        self.write("keyringd.yaml", "\n".join([
            "listen: 127.0.0.1:0", "health_listen: 'off'", "trust_domain: t.example",
            "tls: {certificate: pki/server.crt, key: pki/server.key, client_ca: pki/ca.crt}",
            "tenants_directory: tenants", "anchor_directory: anchors", "allowed_endpoints: [127.0.0.1]",
            "local_provider: {directory: cmks, root_key_file: root.key}", "",
        ]))
        self.server = Server([f"{programs}/keyringd", "--config", "keyringd.yaml"], f"{folder}/log", folder)
        ready = re.compile(r"keyringd .* ready on [^ ]*:(\d+)\n")
        port = self.server.wait_until(lambda: ready.search(self.server.said())).group(1)
        self.environment |= {"KEYRING_SERVER": f"localhost:{port}", "KEYRING_CA": f"{folder}/pki/ca.crt"}

    def write(self, path, text):
        with open(os.open(f"{self.folder}/{path}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)

    def run(self, arguments, certificate=None):
        """Runs keyringctl; its exit status and both outputs."""
        environment = dict(self.environment)
        if certificate:
            path = f"{self.folder}/pki/{certificate}"
            environment |= {"KEYRING_CERT": f"{path}.crt", "KEYRING_KEY": f"{path}.key"}
        done = subprocess.run(
            [f"{self.programs}/keyringctl", *arguments], cwd=self.folder, env=environment, text=True, capture_output=True
        )
        if not certificate:
            need(done.returncode == 0, f"keyringctl {arguments}: {done.stderr}")
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    def tenant(self, name, cmk, *lines):
        """Each operation of it asks the KMS."""
        os.mkdir(f"{self.folder}/tenants/{name}", 0o700)
        self.write(f"tenants/{name}/credentials", "AKIATESTTESTTEST0001\nsecret/of+a+test\n")
        self.write(f"tenants/{name}/tenant.yaml", "\n".join([
            f"cmk_id: {cmk}", "provider: aws", f"endpoint: {ENDPOINT}", "instances: [db1]", "wrapping_key_ttl: 0",
            "outage_grace: 0", *lines, "",
        ]))
        self.run(["pki", "issue", "--directory", "pki", "instance", name, "db1"])
        return Tenant(self, name)


class Tenant:
    def __init__(self, keyring, name):
        self.keyring, self.name = keyring, name

    def admin(self, *arguments):
        status, output, error = self.keyring.run(arguments, "admin")
        need(status == 0, f"keyringctl {' '.join(arguments)}: {error}")
        return output

    def instance(self, *arguments):
        return self.keyring.run(["key", *arguments], f"{self.name}-db1")

    def generate(self):
        status, _, error = self.instance("generate", "k")
        need(status == 0, f"no key was generated: {error}")

    def fetch(self):
        status, value, error = self.instance("fetch", "k")
        need(status == 0, f"the key was not fetched: {error}")
        need(re.fullmatch("[0-9a-f]{64}", value), "a key has 32 bytes")
        return value

    def state(self):
        status = json.loads(self.admin("status", self.name, "--output", "json"))
        return status["summary"]["state"], status["reason"]

    def file(self):
        with open(f"{self.keyring.folder}/tenants/{self.name}/keyring", "rb") as file:
            return file.read()

    def need_locked(self, why):
        """Refused, never absent (status 3), for this reason; a new key is refused too, and the file stays as it is."""
        before = self.file()
        # A new key may need a new wrapping key first, which the CMK in force denies.
        for arguments, refusals in [(("fetch", "k"), "TENANT_LOCKED"), (("generate", "new"), "TENANT_LOCKED|KMS_DENIED")]:
            status, output, error = self.instance(*arguments)
            need(status == 1 and not output, f"{arguments} ended with {status}")
            need(re.search(f"({refusals}).*{why}", error), f"{arguments} was refused otherwise: {error}")
        state, reason = self.state()
        need(state == "locked" and why in reason, f"status says {state}: {reason}")
        need(self.file() == before, "the storage file changed")


def states(keyring):
    administrator = kms(HOME)
    cmk = administrator.create_key()["KeyMetadata"]["Arn"]
    acme = keyring.tenant("acme", cmk)
    acme.generate()
    value = acme.fetch()
    need(acme.state()[0] == "ready", f"status says {acme.state()}")
    yield "enabled: a key is generated and fetched"
    administrator.disable_key(KeyId=cmk)
    acme.need_locked("disabled")
    yield "disabled: TENANT_LOCKED"
    administrator.enable_key(KeyId=cmk)
    acme.admin("tenant", "reload", "acme")
    need(acme.fetch() == value, "another key is fetched")
    yield "enabled again: the same key"
    administrator.schedule_key_deletion(KeyId=cmk, PendingWindowInDays=7)
    acme.need_locked("pending deletion")
    yield "pending deletion: TENANT_LOCKED"
    administrator.cancel_key_deletion(KeyId=cmk)
    status, _, error = keyring.run(["tenant", "reload", "acme"], "admin")
    need(status == 1 and "disabled" in error, f"a tenant of a disabled CMK is reloaded: {error}")
    # Since it is asked at most once in 30 s, status has what it said before.
    acme.need_locked("pending deletion")
    yield "deletion cancelled: disabled, TENANT_LOCKED"
    administrator.enable_key(KeyId=cmk)
    acme.admin("tenant", "reload", "acme")
    need(acme.fetch() == value, "another key is fetched")
    yield "enabled again: the same key"


def absent(keyring):
    cmk = f"arn:aws:kms:{HOME}:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    tenant = keyring.tenant("absent", cmk)
    status, _, error = tenant.instance("generate", "k")
    need(status == 1 and "KMS_DENIED" in error and "not found" in error, f"refused otherwise: {error}")
    yield "no such CMK: not found"


def regions(keyring):
    """A multi-Region CMK by its id and a region, and by its ARN."""
    home, away = kms(HOME), kms(AWAY)
    for variable in ["region", "cmk_id"]:
        cmk = home.create_key(MultiRegion=True)["KeyMetadata"]
        replica = home.replicate_key(KeyId=cmk["KeyId"], ReplicaRegion=AWAY)["ReplicaKeyMetadata"]["Arn"]
        if variable == "region":
            tenant, value = keyring.tenant("by-region", cmk["KeyId"], f"region: {HOME}"), AWAY
        else:
            tenant, value = keyring.tenant("by-arn", cmk["Arn"]), replica
        tenant.generate()
        key = tenant.fetch()
        home.disable_key(KeyId=cmk["KeyId"])
        tenant.need_locked("disabled")
        tenant.admin("set", "global", variable, value, "--tenant", tenant.name)
        need(tenant.fetch() == key, "another key is fetched")
        yield f"{tenant.name}: {AWAY} opens what {HOME}, now disabled, wrapped: the same key"
        away.disable_key(KeyId=replica)
        tenant.need_locked("disabled")
        yield f"{tenant.name}: both disabled: TENANT_LOCKED"


def is_listening():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    servers = []
    with tempfile.TemporaryDirectory(prefix="keyring-localstack-") as folder:
        for name in ["emulator", "keyring"]:
            os.mkdir(f"{folder}/{name}", 0o700)
        environment = {
            "PATH": os.environ["PATH"], "HOME": f"{folder}/emulator", "TMPDIR": f"{folder}/emulator",
            "LOCALSTACK_VOLUME_DIR": f"{folder}/emulator", "SERVICES": "kms", "STRICT_SERVICE_LOADING": "1",
            "GATEWAY_LISTEN": f"127.0.0.1:{PORT}", "SKIP_SSL_CERT_DOWNLOAD": "1", "DISABLE_EVENTS": "1", "DNS_ADDRESS": "0",
        }
        try:
            emulator = [sys.executable, "-m", "localstack.runtime.main"]
            servers.append(Server(emulator, f"{folder}/emulator/log", folder, environment))
            servers[0].wait_until(is_listening)
            keyring = Keyring(sys.argv[1], f"{folder}/keyring")
            servers.append(keyring.server)
            for story in [states, absent, regions]:
                for line in story(keyring):
                    print(line, flush=True)
        except Failed as failure:
            sys.exit(f"failed: {failure}")
        finally:
            for server in reversed(servers):
                server.end()


main()
