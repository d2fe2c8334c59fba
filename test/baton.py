# SPDX-License-Identifier: Apache-2.0
"""What the tests in this folder share: real processes of the binary under test, asked with curl.

BATON names the binary (default build/baton).  A test is a function whose name begins with test_; main() runs them all
and closes with "N passed, N failed".  Processes are ended by their own id, and every engine must come to rest:
its ledger balances, no block is held or leased."""
import json, os, re, signal, socket, subprocess, sys, tempfile, time, traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BATON = os.path.join(ROOT, os.environ.get("BATON", "build/baton"))
MODEL = os.environ.get("BATON_TEST_MODEL") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "baton", "SmolLM2-135M-Instruct.Q4_1.gguf")
SLOW = 8 if "debug" in BATON else 1  # sanitizers: patience, not expectations, is multiplied


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The data of each server-sent event, [DONE] left out."""
        lines = [line[6:] for line in self.body.split("\n") if line.startswith("data: ")]
        assert lines and lines[-1] == "[DONE]", self.body[-300:]
        return [json.loads(line) for line in lines[:-1]]

    def comments(self):
        return [line[1:].strip() for line in self.body.split("\n") if line.startswith(":")]


def curl(url, body=None, headers=(), seconds=120, method=None):
    command = ["curl", "-sS", "-i", "--max-time", str(seconds * SLOW)]
    if method:
        command += ["-X", method]
    for header in headers:
        command += ["-H", header]
    if body is not None:
        if not any(h.lower().startswith("content-type") for h in headers):
            command += ["-H", "Content-Type: application/json"]
        command += ["--data-binary", "@-"]
    data = None if body is None else (body if isinstance(body, (str, bytes)) else json.dumps(body))
    if isinstance(data, str):
        data = data.encode()
    done = subprocess.run(command + [url], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise AssertionError(f"curl {url}: {done.stderr.decode()}")
    head, _, text = done.stdout.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, text = text.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Reply(int(lines[0].split()[1]), fields, text.decode())


class Process:
    """One process of the binary; its output is kept."""

    def __init__(self, *arguments, env=None, wait="/health", port=None):
        self.port = port
        self.log = tempfile.NamedTemporaryFile("w+", prefix="baton-test-", suffix=".log")
        self.process = subprocess.Popen([BATON, *map(str, arguments)], stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(env or {})})
        if wait:
            self.wait_ready(wait)

    url = property(lambda self: f"http://127.0.0.1:{self.port}")
    pid = property(lambda self: self.process.pid)

    def output(self):
        with open(self.log.name) as f:
            return f.read()

    def wait_ready(self, path):
        end = time.monotonic() + 30 * SLOW
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.output()}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    pass
                if curl(self.url + path).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.01)
        raise AssertionError(f"not ready: {self.output()}")

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=20):
        return self.process.wait(seconds * SLOW)

    def stop(self, status=0):
        """SIGTERM; it must exit as it promises."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        assert self.wait() == status, f"exit status {self.process.returncode}: {self.output()[-2000:]}"

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind:
            print(f"    {self.process.args[1:3]}:", *self.output().splitlines()[-12:], sep="\n      ")
            self.kill()
        elif self.process.poll() is None:
            self.stop()


class Engine(Process):
    def __init__(self, *arguments, env=None, role=None, port=None, transfer=None, **keep):
        port = port or free_port()
        more = []
        if role:
            config = {"kv_connector": "NixlConnector", "kv_role": role,
                      "kv_connector_extra_config": {"kv_lease_duration": 4 * SLOW, **(transfer or {})}}
            more = ["--kv-transfer-config", json.dumps(config)]
        super().__init__("engine", "serve", MODEL, "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", port,
                         "--max-model-len", 4096, *more, *arguments, env=env, port=port, **keep)

    def ledger(self):
        return curl(self.url + "/ledger").json()

    def assert_at_rest(self, seconds=5):
        end = time.monotonic() + seconds * SLOW
        while True:
            ledger = self.ledger()
            blocks = ledger["blocks"]
            if ledger["balanced"] and not blocks["held"] and not blocks["leased"] and not ledger["requests"]:
                return
            if time.monotonic() > end:
                raise AssertionError(f"not at rest: {ledger}")
            time.sleep(0.02)

    def metric(self, name, **labels):
        for line in curl(self.url + "/metrics").body.splitlines():
            if re.match(re.escape(name) + r"[{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.split()[-1])
        raise AssertionError(f"no metric {name} {labels}")

    def stages(self, reply):
        return fields(reply.headers["baton-stages"])

    def __exit__(self, kind, *rest):
        if not kind and self.process.poll() is None:
            self.assert_at_rest(40)
        super().__exit__(kind, *rest)


class Router(Process):
    def __init__(self, *arguments, env=None, port=None, **keep):
        port = port or free_port()
        super().__init__("router", "--host", "127.0.0.1", "--port", port, *arguments, env=env, port=port, wait="/readyz", **keep)


def fields(text):
    """ "a=1; b=x" as a dict."""
    return dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)


def cases():
    with open(os.path.join(ROOT, "test/data/smollm2-greedy.jsonl")) as f:
        return [json.loads(line) for line in f]


def contains(text, *parts):
    for part in parts:
        assert part in text, f"'{text}' does not say '{part}'"


def main():
    passed = failed = 0
    chosen = sys.argv[1:]
    module = sys.modules["__main__"]
    for name, test in list(vars(module).items()):
        if not name.startswith("test_") or (chosen and not any(c in name for c in chosen)):
            continue
        begin = time.monotonic()
        try:
            test()
            passed += 1
            verdict = "ok"
        except Exception:
            failed += 1
            verdict = "FAILED"
            traceback.print_exc(file=sys.stdout)
        print(f"  {verdict:6} {name[5:].replace('_', ' ')} ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)
