# SPDX-License-Identifier: Apache-2.0
"""The engine answers as `vllm serve` did: every exchange recorded in test/data/vllm is sent again and compared.

Same status and content type, same JSON members in the same order with the same types, same sequence of events.  Ids,
times, fingerprints and generated words may differ; an error message says at least as much.  Where we do otherwise on
purpose, DIFFERENT says what is expected instead."""
import glob
from baton import *

DATA = os.path.join(ROOT, "test/data/vllm")

# Families that vLLM has and we have nothing true to say about.
NO_FAMILY = ("python_", "vllm:estimated_", "vllm:nixl_post_time_seconds")


def recorded(pattern):
    for path in sorted(glob.glob(os.path.join(DATA, pattern))):
        with open(path, encoding="utf-8") as f:
            yield os.path.basename(path)[:-5], json.load(f)


def send(url, exchange, body=None):
    request = exchange["request"]
    headers = [f"{name}: {value}" for name, value in request["headers"].items()]
    body = request["body"] if body is None else body
    return curl(url + request["path"], body, headers, method=request.get("method"))


def kind(value):
    if value is None or isinstance(value, (bool, str, dict, list)):
        return type(value).__name__
    return "number"


def same_shape(want, got, at="$"):
    """Members, their order and their types; of lists each element against the recorded one, or the last of them."""
    assert kind(want) == kind(got), f"{at} is {kind(got)}, not {kind(want)}: {got!r}"
    if isinstance(want, dict):
        if want and all(key.isdigit() or key[:1] in " ,-'" for key in want):  # keyed by token: other tokens will do
            assert len(want) == len(got), f"{at} has {list(got)}, not {list(want)}"
            for (_, a), (name, b) in zip(want.items(), got.items()):
                same_shape(a, b, f"{at}.{name}")
            return
        assert list(want) == list(got), f"{at} has {list(got)}, not {list(want)}"
        for name in want:
            same_shape(want[name], got[name], f"{at}.{name}")
    if isinstance(want, list) and want:
        assert got, f"{at} is empty"
        for i, value in enumerate(got):
            same_shape(want[min(i, len(want) - 1)], value, f"{at}[{i}]")


def same_error(want, got, name):
    want, got = want["error"], got["error"]
    for member in ("type", "code"):
        assert want[member] == got[member], (name, got)
    if want["type"] == "Bad Request" and want["param"]:
        # vLLM tells each branch of a union; the place and the cause are what counts.
        place = re.sub(r"\.[A-Z]\w+Param", "", want["param"])
        assert got["param"] == place, (name, got)
        assert re.match(r"\d+ validation errors?:\n  \{'type': '\w+', 'loc': '", got["message"]), got
        first = re.search(r"'type': '(\w+)'.*?'msg': ('[^']*')", want["message"]).groups()
        contains(got["message"], f"'type': '{first[0]}'", f"'msg': {first[1]}", f"'loc': '{place}'")
    else:
        assert want["param"] == got["param"], (name, got)
        contains(got["message"], want["message"])


def shapes(events):
    """Each choice's events without what differs from word to word; runs of equal ones count once."""
    out = {}
    for event in events:
        index = event["choices"][0]["index"] if event.get("choices") else None
        shape, before = json.dumps(flatten(event)), out.setdefault(index, [])
        if not before or before[-1] != shape:
            before.append(shape)
    return out


def flatten(value):
    if isinstance(value, dict):
        return [[name, "" if name == "finish_reason" and v else flatten(v)] for name, v in value.items()]
    if isinstance(value, list):
        return [flatten(value[0])] if value and not isinstance(value[0], int) else ["*"]
    return kind(value)


def events_of(text):
    lines = text.split("\n\n")
    assert lines[-1] == "" and lines[-2] == "data: [DONE]" and all(line.startswith("data: ") for line in lines[:-1]), text
    return [json.loads(line[6:]) for line in lines[:-2]]


def compare(name, exchange, reply):
    assert reply.status == exchange["status"], f"{name}: {reply.status}, not {exchange['status']}: {reply.body[:500]}"
    want_type, body = exchange["headers"].get("content-type"), exchange["body"]
    assert reply.headers.get("content-type") == want_type, (name, reply.headers)
    if want_type and want_type.startswith("text/event-stream"):
        want, got = shapes(events_of(body)), shapes(events_of(reply.body))
        assert want == got, f"{name}: {got}\nnot {want}"
    elif want_type == "application/json":
        want, got = json.loads(body), json.loads(reply.body)
        same_shape(want, got)
        if "error" in want and isinstance(want["error"], dict):
            same_error(want, got, name)
    else:
        assert reply.body == body, name


def refuses(reply, status, param, *says):
    assert reply.status == status, reply.body
    error = reply.json()["error"]
    assert error["param"] == param and list(error) == ["message", "type", "param", "code"], error
    contains(error["message"], *says)


# Exchanges that we answer otherwise, and how.
DIFFERENT = {
    "031-chat-json-schema": lambda reply, _: refuses(reply, 400, "response_format", "json_schema", "not supported"),
    "005-metrics-before": lambda reply, exchange: same_families(reply, exchange),
}


def families(text):
    return dict(line.split(" ")[2:4] for line in text.splitlines() if line.startswith("# TYPE "))


def samples(text):
    """{(name, names of labels)}"""
    out = set()
    for line in text.splitlines():
        match = re.match(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$', line)
        assert line.startswith("#") or match, f"not Prometheus: {line}"
        if match:
            float(match.group(3))
            out.add((match.group(1), tuple(sorted(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', match.group(2) or "")))))
    return out


def same_families(reply, exchange):
    want, got = families(exchange["body"]), families(reply.body)
    for name, type in want.items():
        if not name.startswith(NO_FAMILY):
            assert got.get(name) == type, f"{name} is {got.get(name)}, not {type}"
    ours = samples(reply.body)
    for name, labels in samples(exchange["body"]):
        if name.startswith(NO_FAMILY) or name.startswith("http_") or name == "vllm:cache_config_info":
            continue
        assert (name, labels) in ours, f"{name} has no sample with the labels {labels}"
    config = re.search(r"vllm:cache_config_info\{(.*)\} 1.0", reply.body).group(1)
    contains(config, 'block_size="16"', 'num_gpu_blocks="', 'engine="0"')


def replay(url, pattern):
    failures = 0
    for name, exchange in recorded(pattern):
        try:
            reply = send(url, exchange)
            if name in DIFFERENT:
                DIFFERENT[name](reply, exchange)
            else:
                compare(name, exchange, reply)
            if name == "041-chat-kv-transfer-no-connector":
                contains(reply.headers["baton-degraded"], "do_remote_decode is not possible")
        except AssertionError as failure:
            failures += 1
            print(f"    {name}: {failure}")
    assert not failures, f"{failures} exchanges differ"


def test_every_exchange_is_answered_as_recorded():
    with Engine() as engine:
        replay(engine.url, "0*.json")


def test_every_error_is_told_as_recorded():
    with Engine() as engine:
        replay(engine.url, "errors/*.json")


def test_texts_that_do_not_depend_on_words_are_equal():
    """Greedy answers of the same weights: here even the words are those of vLLM."""
    with Engine() as engine:
        for name in ("013-chat-greedy", "019-chat-stop-included", "029-chat-return-token-ids", "009-tokenize",
                     "010-tokenize-chat", "011-detokenize"):
            exchange = next(e for n, e in recorded("0*.json") if n == name)
            got, want = send(engine.url, exchange).json(), json.loads(exchange["body"])
            if "choices" in want:
                assert got["choices"] == want["choices"], (name, got["choices"])
                assert got["usage"] == want["usage"] and got["prompt_token_ids"] == want["prompt_token_ids"]
            else:
                assert got == want, (name, got)


def test_prefill_and_decode_exchange_what_routers_know():
    exchanges = dict(recorded("pd/*.json"))
    lease = {"kv_lease_duration": 2}  # offers that nobody takes end within the test
    with Engine(role="kv_producer", transfer=lease) as prefill, Engine(role="kv_consumer") as decode:
        urls = {"prefill": prefill.url, "decode": decode.url}

        def go(name, params=None):
            exchange = exchanges[name]
            body = dict(exchange["request"]["body"])
            if params:
                body["kv_transfer_params"] = params
            reply = send(urls[exchange["server"]], exchange, body)
            if exchange["status"] == 200:
                compare(name, exchange, reply)
            return reply

        go("pd-01-local-reference")
        first = go("pd-02-prefill").json()["kv_transfer_params"]
        assert first["remote_host"] == "127.0.0.1" and first["remote_request_id"].startswith("chatcmpl-pd-1-")
        pulled = go("pd-03-decode", first)
        assert int(decode.stages(pulled)["pulled"]) == 54 and pulled.json()["kv_transfer_params"] is None
        go("pd-05-decode-stream", go("pd-04-prefill-2").json()["kv_transfer_params"])
        completion = go("pd-06-prefill-completions").json()["kv_transfer_params"]
        assert re.match(r"cmpl-[0-9a-f]{16}-0-[0-9a-f]{8}$", completion["remote_request_id"]), completion
        go("pd-07-decode-completions", completion)
        stream = go("pd-08-prefill-stream")
        contains(stream.headers["baton-degraded"], "a stream carries no kv_transfer_params")
        go("pd-09-prefill-two-tokens")
        go("pd-10-decode-without-params")
        for exchange, engine in (("pd-11-metrics-P", prefill), ("pd-12-metrics-D", decode)):
            same_families(curl(engine.url + "/metrics"), exchanges[exchange])

        # Where vLLM fails or computes again in silence:
        unreachable = go("pd-13-decode-unreachable-prefill")
        assert unreachable.status == 200, unreachable.body
        contains(unreachable.headers["baton-degraded"], "127.0.0.1:1")
        again = go("pd-14-decode-used-blocks-again", first)
        contains(again.headers["baton-degraded"], first["remote_request_id"])
        refuses(go("pd-15-decode-missing-fields"), 400, "kv_transfer_params", "remote_engine_id", "remote_request_id",
                "remote_host", "remote_port", "remote_block_ids")
        after = go("pd-16-decode-after-errors")
        assert after.status == 200, after.body


main()
