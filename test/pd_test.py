# SPDX-License-Identifier: Apache-2.0
"""Prefill and decode apart, through the router: the answers of one engine bit for bit, and no failure in silence."""
import shutil, signal, socket, threading, time
from baton import *

EXACT = {"temperature": 0, "logprobs": 5, "return_token_ids": True}


class Apart:
    """Two engines and a router."""

    def __init__(self, rail="auto", prefill_env=None, decode_env=None, decode_flags=(), router_flags=(), prefill_flags=()):
        self.prefill = Engine("--kv-rail", rail, *prefill_flags, role="kv_producer", env=prefill_env)
        self.decode = Engine("--kv-rail", rail, *decode_flags, role="kv_consumer", env=decode_env)
        self.router = Router("--model", "smollm2", "--prefill", self.prefill.url, "--decode", self.decode.url, "--connector",
                             "nixl", *router_flags)
        self.url = self.router.url

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        for process in (self.router, self.decode, self.prefill):
            process.__exit__(kind, *rest)


def strip(body):
    """What may differ between two answers that are the same."""
    for key in ("id", "created", "system_fingerprint"):
        body.pop(key, None)
    return body


def ask(url, prompt, **more):
    body = {"model": "smollm2", "prompt": prompt, "max_tokens": 16, **EXACT, **more}
    reply = curl(url + "/v1/completions", body, headers=["Baton-Trace: full"])
    assert reply.status == 200, reply.body
    if more.get("stream"):
        return reply, [strip(e) for e in reply.events()]
    return reply, strip(reply.json())


def traced(reply):
    return fields(reply.headers["baton-trace"])


def check_all_prompts(**how):
    with Engine() as single, Apart(**how) as apart:
        rail = how.get("rail", "auto").replace("auto", "shm")
        for case in cases():
            for stream in (False, True):
                _, want = ask(single.url, case["prompt_tokens"], stream=stream)
                reply, got = ask(apart.url, case["prompt_tokens"], stream=stream)
                assert want == got, (case["id"], stream, want, got)
                trace, n = traced(reply), len(case["prompt_tokens"])
                assert trace["rail"] == rail, trace
                assert int(trace["computed"]) == 0 and int(trace["cached"]) + int(trace["pulled"]) == n, trace
                assert int(trace["bytes"]) > 0 and "baton-degraded" not in reply.headers
        apart.prefill.assert_at_rest()
        apart.decode.assert_at_rest()


def test_every_prompt_over_shared_memory_as_one_engine():
    check_all_prompts(rail="auto")


def test_every_prompt_over_tcp_as_one_engine():
    check_all_prompts(rail="tcp")


def test_other_kernels_on_each_side_give_the_same_answers():
    check_all_prompts(rail="shm", prefill_env={"BATON_KERNELS": "avx2"}, decode_env={"BATON_KERNELS": "scalar"})


def test_sixteen_at_once_seeded_and_streaming():
    with Engine() as single, Apart() as apart:
        def both(url, i):
            return ask(url, f"{i} little ducks went out one day", stream=i % 2 == 1, seed=i, temperature=0.9, max_tokens=24)[1]
        want = [both(single.url, i) for i in range(16)]
        got = [None] * 16
        def work(i):
            got[i] = both(apart.url, i)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert want == got


def test_a_choice_of_several_answers_and_chat_go_the_same_way():
    chat = {"model": "smollm2", "messages": [{"role": "user", "content": "Name three colours."}], "temperature": 0.7, "seed": 3,
            "n": 3, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    with Engine() as single, Apart() as apart:
        want = strip(curl(single.url + "/v1/chat/completions", chat).json())
        reply = curl(apart.url + "/v1/chat/completions", chat)
        got = strip(reply.json())
        assert want["choices"] == got["choices"] and int(traced(reply)["pulled"]) > 0


def test_the_trace_tells_where_and_how_long():
    with Apart() as apart:
        prompt = "The ferryman had been crossing the river for thirty-one years, and in all that time he had never counted."
        for round in range(2):
            reply, _ = ask(apart.url, prompt, stream=True)
            trace = traced(reply)
            assert list(trace)[:8] == ["id", "prefill", "decode", "computed", "cached", "pulled", "bytes", "rail"], trace
            for key in ("route_us", "prefill_us", "transfer_us", "first_token_us"):
                assert int(trace[key]) >= 0
            full = [c for c in reply.comments() if c.startswith("Baton-Trace:")]
            assert len(full) == 1 and f"id={trace['id']}" in full[0], full
            assert int(trace["prefill"].split("/")[1]) + (0 if round == 0 else 16) > 0
            if round:
                assert int(trace["cached"]) >= 16


def test_a_dead_prefill_engine_is_named_and_decode_goes_on():
    with Engine() as single, Apart() as apart:
        prompt = [100 + i for i in range(50)]
        offer = curl(apart.prefill.url + "/v1/completions",
                     {"prompt": prompt, "max_tokens": 1, "temperature": 0, "kv_transfer_params": {"do_remote_decode": True}})
        params = offer.json()["kv_transfer_params"]
        apart.prefill.kill()
        begin = time.monotonic()
        reply, got = ask(apart.decode.url, prompt, kv_transfer_params=params)
        assert time.monotonic() - begin < 6 * SLOW
        want = ask(single.url, prompt)[1]
        assert want["choices"] == got["choices"]
        contains(reply.headers["baton-degraded"], str(params["remote_port"]))
        assert int(apart.decode.stages(reply)["computed"]) == 50
        assert apart.decode.metric("baton:degraded_total") == 1
        through, got = ask(apart.url, prompt)
        assert want["choices"] == got["choices"]
        contains(through.headers["baton-degraded"], "prefill", str(apart.prefill.port), "connection refused")
        assert traced(through)["rail"] == "none"
        apart.decode.assert_at_rest()


def test_a_strict_router_answers_one_error_that_names_stage_and_peer():
    with Apart(router_flags=["--strict"]) as apart:
        apart.prefill.kill()
        for stream in (False, True):
            body = {"model": "smollm2", "prompt": "x", "max_tokens": 1, "stream": stream}
            reply = curl(apart.url + "/v1/completions", body)
            assert reply.status in (502, 503), reply.body
            contains(reply.json()["error"]["message"], "prefill", str(apart.prefill.port), "connection refused")


def test_a_silent_prefill_engine_costs_a_deadline_and_no_more():
    with Engine() as single, Apart(decode_flags=["--kv-transfer-config.kv_connector_extra_config.pull_timeout_s", "1"]) as apart:
        prompt = [200 + i for i in range(50)]
        offer = curl(apart.prefill.url + "/v1/completions",
                     {"prompt": prompt, "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}})
        apart.prefill.signal(signal.SIGSTOP)
        begin = time.monotonic()
        reply, got = ask(apart.decode.url, prompt, kv_transfer_params=offer.json()["kv_transfer_params"])
        seconds = time.monotonic() - begin
        apart.prefill.signal(signal.SIGCONT)
        assert seconds < 3 * SLOW, seconds
        assert ask(single.url, prompt)[1]["choices"] == got["choices"]
        assert "baton-degraded" in reply.headers
        apart.prefill.assert_at_rest(40)


def test_blocks_of_another_prompt_are_never_used():
    with Engine() as single, Apart() as apart:
        mine, other = [300 + i for i in range(40)], [301 + i for i in range(40)]
        offer = curl(apart.prefill.url + "/v1/completions",
                     {"prompt": other, "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}})
        reply, got = ask(apart.decode.url, mine, kv_transfer_params=offer.json()["kv_transfer_params"])
        assert ask(single.url, mine)[1]["choices"] == got["choices"]
        contains(reply.headers["baton-degraded"], "another prompt")


def test_strict_makes_it_one_clear_error():
    with Apart(decode_flags=["--strict"]) as apart:
        offer = curl(apart.prefill.url + "/v1/completions",
                     {"prompt": [5] * 40, "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}})
        params = offer.json()["kv_transfer_params"]
        reply = curl(apart.decode.url + "/v1/completions", {"prompt": [6] * 40, "max_tokens": 4, "kv_transfer_params": params})
        assert reply.status == 500, reply.body
        contains(reply.json()["error"]["message"], "another prompt")
        assert curl(apart.decode.url + "/v1/completions", {"prompt": [6] * 40, "max_tokens": 1}).status == 200


def test_missing_keys_are_named_and_the_engine_lives_on():
    with Engine(role="kv_consumer") as decode:
        body = {"prompt": "x", "max_tokens": 1, "kv_transfer_params": {"do_remote_prefill": True}}
        reply = curl(decode.url + "/v1/completions", body)
        assert reply.status == 400
        contains(reply.json()["error"]["message"], "remote_engine_id", "remote_request_id", "remote_host", "remote_port")
        assert curl(decode.url + "/v1/completions", {"prompt": "x", "max_tokens": 1}).status == 200


def test_a_prefill_engine_killed_and_started_again_heals_without_help():
    port = free_port()
    with Engine(role="kv_consumer") as decode:
        prefill = Engine(role="kv_producer", port=port)
        with Router("--model", "smollm2", "--prefill", f"http://127.0.0.1:{port}", "--decode", decode.url, "--connector",
                    "nixl") as router:
            for life in range(3):
                reply, _ = ask(router.url, [400 + life + i for i in range(60)])
                assert int(traced(reply)["pulled"]) == 60
                prefill.kill()
                prefill = Engine(role="kv_producer", port=port)
                end = time.monotonic() + 15 * SLOW  # the router looks again by itself
                while curl(router.url + "/v1/completions", {"model": "smollm2", "prompt": "x", "max_tokens": 1}).status != 200:
                    assert time.monotonic() < end
                    time.sleep(0.1)
        prefill.assert_at_rest(40)
        prefill.stop()


def test_a_client_that_leaves_is_noticed_by_both_engines():
    with Apart() as apart:
        for prompt_tokens, wait in ((3500, 0.02), (20, 0.3)):
            body = json.dumps({"model": "smollm2", "prompt": [7 + i % 900 for i in range(prompt_tokens)], "max_tokens": 400,
                               "ignore_eos": True, "stream": True}).encode()
            with socket.create_connection(("127.0.0.1", apart.router.port)) as s:
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                          b"Content-Length: %d\r\n\r\n" % len(body) + body)
                time.sleep(wait * SLOW)
            end = time.monotonic() + 2 * SLOW
            while apart.prefill.ledger()["requests"] or apart.decode.ledger()["requests"]:
                assert time.monotonic() < end
                time.sleep(0.005)
        apart.decode.assert_at_rest()
        apart.prefill.assert_at_rest(40)


def test_a_decode_engine_that_dies_in_a_stream_ends_it_with_an_error_event():
    with Apart() as apart:
        result = []
        def work():
            result.append(curl(apart.url + "/v1/completions", {"model": "smollm2", "prompt": "Once", "max_tokens": 2000,
                                                                "ignore_eos": True, "stream": True}))
        thread = threading.Thread(target=work)
        thread.start()
        while not apart.decode.ledger()["requests"]:
            time.sleep(0.01)
        time.sleep(0.2 * SLOW)
        apart.decode.kill()
        thread.join()
        assert result[0].status == 200
        events = result[0].events()
        assert "error" in events[-1] and sum("error" in e for e in events) == 1
        contains(events[-1]["error"]["message"], str(apart.decode.port))


def test_a_folder_of_manifests_is_watched():
    folder = tempfile.mkdtemp(prefix="baton-objects-")
    with Engine(role="kv_producer") as prefill, Engine(role="kv_consumer") as decode:
        for name in os.listdir(ROOT + "/examples"):
            if not name.endswith(".yaml"):
                continue
            with open(ROOT + "/examples/" + name) as f:
                text = f.read()
            text = re.sub(r'(baton.dev/port: )"8100"', rf'\1"{prefill.port}"', text)
            text = re.sub(r'(baton.dev/port: )"8200"', rf'\1"{decode.port}"', text)
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
        with Router("--objects", folder) as router:
            models = [m["id"] for m in curl(router.url + "/v1/models").json()["data"]]
            assert models, "no model"
            reply = curl(router.url + "/v1/completions", {"model": models[0], "prompt": [9] * 40, "max_tokens": 4})
            assert reply.status == 200 and int(traced(reply)["pulled"]) == 40, reply.body
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
            end = time.monotonic() + 5 * SLOW
            while curl(router.url + "/v1/models").json()["data"]:
                assert time.monotonic() < end
                time.sleep(0.05)
    shutil.rmtree(folder)


main()
