# SPDX-License-Identifier: Apache-2.0
"""One engine over HTTP: exact on the reference's data, and right towards clients that come, go and err."""
import signal, socket, subprocess, sys, time, threading
from baton import *

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


def ask_case(engine, case, **more):
    body = {"model": "smollm2", "prompt": case["prompt_tokens"], "max_tokens": 64, "temperature": 0, "return_token_ids": True,
            **more}
    reply = curl(engine.url + "/v1/completions", body)
    assert reply.status == 200, reply.body
    return reply.json()["choices"][0]


def test_greedy_tokens_and_log_probabilities_are_those_of_exact_arithmetic():
    off, count = 0.0, 0
    with Engine() as engine:
        for case in cases():
            choice = ask_case(engine, case, logprobs=5, return_tokens_as_token_ids=True)
            tokens, f32 = choice["token_ids"], case["f32"]
            must = case["must_match"]
            assert tokens[:must] == case["tokens"][:must], case["id"]
            for step, (want, margin) in enumerate(zip(f32["tokens"], f32["margins"])):
                if margin < 0.02:
                    break
                assert tokens[step] == want, f"{case['id']}: token {step} is {tokens[step]}, not {want}"
            for step, top in enumerate(f32["top5"]):
                if tokens[:step] != f32["tokens"][:step]:
                    break
                ours = choice["logprobs"]["top_logprobs"][step]
                for token, logprob in zip(top["ids"], top["logprobs"]):
                    if f"token_id:{token}" in ours:
                        off += abs(ours[f"token_id:{token}"] - logprob)
                        count += 1
            if case["mode"] == "chat":  # the same prompt through the model's own template
                body = {**CHAT, "messages": case["messages"], "max_tokens": 1, "return_token_ids": True}
                assert curl(engine.url + "/v1/chat/completions", body).json()["prompt_token_ids"] == case["prompt_tokens"]
    print(f"    mean change of a log-probability: {off / count:.5f} ({count} values)")
    assert count > 200 and off / count < 0.01


def test_mean_nll_of_the_reference_text_is_that_of_exact_arithmetic():
    with open(ROOT + "/test/data/ppl.txt", encoding="utf-8") as f:
        text = f.read()
    with Engine() as engine:
        tokens = curl(engine.url + "/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]
        total, scored = 0.0, 0
        for begin in range(0, len(tokens), 2048):
            window = tokens[begin:begin + 2048]
            body = {"prompt": window, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
            places = curl(engine.url + "/v1/completions", body).json()["choices"][0]["prompt_logprobs"]
            assert places[0] is None and len(places) == len(window)
            for token, place in zip(window[1:], places[1:]):
                total -= place[str(token)]["logprob"]
                scored += 1
    print(f"    mean NLL {total / scored:.6f} over {scored} tokens (exact arithmetic 2.820203)")
    assert len(tokens) == 4198 and scored == 4195
    assert total / scored <= 2.8207


def test_a_stream_never_cuts_a_character_and_adds_up_to_the_whole_answer():
    body = {**CHAT, "max_tokens": 40, "messages": [{"role": "user", "content": "Answer with emoji only: 🎉😀🚀"}]}
    with Engine() as engine:
        whole = curl(engine.url + "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
        stream = curl(engine.url + "/v1/chat/completions", {**body, "stream": True})
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in stream.events())
        assert text == whole and "\ufffd" not in text.rstrip("\ufffd")


def test_a_client_that_leaves_frees_its_blocks_within_one_step():
    with Engine() as engine:
        for stream in (True, False):
            body = json.dumps({"prompt": "Once upon a time", "max_tokens": 3000, "ignore_eos": True, "stream": stream}).encode()
            with socket.create_connection(("127.0.0.1", engine.port)) as s:
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                          b"Content-Length: %d\r\n\r\n" % len(body) + body)
                if stream:
                    s.recv(100)
                end = time.monotonic() + 10 * SLOW
                while not engine.ledger()["requests"] and time.monotonic() < end:
                    time.sleep(0.005)
                assert engine.ledger()["blocks"]["held"] > 0
            time.sleep(0.05 * SLOW)  # a step is a few milliseconds
            ledger = engine.ledger()
            assert not ledger["requests"] and not ledger["blocks"]["held"], ledger
        assert engine.metric("vllm:request_success_total", finished_reason="abort") == 2


def test_sixteen_clients_get_what_one_gets():
    questions = [f"Count from {i} to {i + 5}." for i in range(16)]
    with Engine() as engine:
        def ask(question):
            body = {**CHAT, "max_tokens": 24, "messages": [{"role": "user", "content": question}]}
            return curl(engine.url + "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
        alone = [ask(q) for q in questions]
        together = [None] * 16
        def work(i):
            together[i] = ask(questions[i])
        threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert alone == together


def test_sigterm_lets_running_requests_finish():
    with Engine() as engine:
        result = []
        def ask():
            body = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "temperature": 0}
            result.append(curl(engine.url + "/v1/completions", body))
        thread = threading.Thread(target=ask)
        thread.start()
        while not engine.ledger()["requests"]:
            time.sleep(0.01)
        engine.signal(signal.SIGTERM)
        thread.join()
        assert engine.wait() == 0, engine.output()
        assert result[0].status == 200 and result[0].json()["usage"]["completion_tokens"] == 400


BAD = [  # body, status, what the message says
    ("{", 400, ["Expecting property name enclosed in double quotes"]),
    ("[]", 400, ["Input should be a valid dictionary"]),
    ({"prompt": "x", "max_tokens": "many"}, 400, ["body.max_tokens", "valid integer"]),
    ({"prompt": "x", "model": "gpt-5"}, 404, ["The model `gpt-5` does not exist", "smollm2"]),
    ({"prompt": [1] * 5000}, 400, ["maximum context length is 4096 tokens", "5000"]),
    ({"prompt": [10 ** 8]}, 400, ["Token id 100000000 is out of vocabulary"]),
    ({"prompt": [-1]}, 400, ["-1"]),
    ({"prompt": ""}, 400, ["prompt"]),
    ({"prompt": "x", "temperature": 3}, 400, ["temperature must be in [0, 2], got 3.0"]),
    ({"prompt": "x", "suffix": "y"}, 400, ["suffix"]),
    ({"prompt": "x", "use_beam_search": True}, 400, ["use_beam_search"]),
    ({"prompt": "x", "guided_json": {}}, 400, ["guided_json"]),
    ({"prompt": "x", "response_format": {"type": "json_object"}}, 400, ["response_format"]),
    ({"prompt": "x", "stop": ["a", "b", "c", "d", "e"]}, 400, ["stop"]),
]


def test_bad_requests_get_one_clear_error_and_the_engine_lives_on():
    with Engine() as engine:
        for body, status, says in BAD:
            reply = curl(engine.url + "/v1/completions", body)
            assert reply.status == status, (body, reply.status, reply.body)
            error = reply.json()["error"]
            assert list(error) == ["message", "type", "param", "code"] and error["code"] == status
            contains(error["message"], *says)
        assert curl(engine.url + "/v1/chat/completions", {**CHAT, "max_tokens": 8}).status == 200
        engine.assert_at_rest()


WRONG_STARTS = [  # arguments, exit status, what stderr says
    (["/nowhere/m.gguf"], 1, ["/nowhere/m.gguf", "hint:"]),
    ([MODEL, "--prot", "1"], 2, ["unknown flag --prot", "Did you mean --port?"]),
    ([MODEL, "--port", "x"], 2, ["--port cannot be 'x'", "from 0 to 65535"]),
    ([MODEL, "--kv-transfer-config", "{"], 2, ["--kv-transfer-config"]),
    ([MODEL, "--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"kv_x"}'], 2, ["kv_x", "kv_producer"]),
    ([MODEL, "--kv-cache-memory-bytes", "1M"], 1, ["--kv-cache-memory-bytes", "--max-model-len"]),
    ([MODEL, "--kv-cache-memory-bytes", "900T"], 1, ["MiB of memory", "--kv-cache-memory-bytes"]),
    ([MODEL, "--max-model-len", "100K"], 2, ["--max-model-len", "8192"]),
    ([__file__], 1, ["GGUF", "hint:"]),
]


def test_wrong_starts_say_what_is_wrong_and_what_to_type():
    for arguments, status, says in WRONG_STARTS:
        done = subprocess.run([BATON, "engine", "serve", "--port", str(free_port()), *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60 * SLOW)
        assert done.returncode == status, (arguments, done.returncode, done.stderr)
        contains(done.stderr, *says)


def test_a_taken_port_is_said_before_the_model_is_loaded():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = str(s.getsockname()[1])
        begin = time.monotonic()
        done = subprocess.run([BATON, "engine", "serve", MODEL, "--host", "127.0.0.1", "--port", port], stderr=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 1 and time.monotonic() - begin < 0.5 * SLOW
        contains(done.stderr, f"could not listen on 127.0.0.1:{port}: address already in use", "hint:", "--port")


def test_kernels_and_threads_do_not_change_an_answer():
    answers = set()
    for env, threads in (({}, 2), ({"BATON_KERNELS": "avx2"}, 1), ({"BATON_KERNELS": "scalar"}, 2)):
        with Engine("--threads", threads, env=env) as engine:
            reply = curl(engine.url + "/v1/chat/completions", {**CHAT, "max_tokens": 8, "logprobs": True, "top_logprobs": 3})
            answers.add(json.dumps(reply.json()["choices"], sort_keys=True))
    assert len(answers) == 1
    done = subprocess.run([BATON, "engine", "serve", MODEL], env={**os.environ, "BATON_KERNELS": "neon"}, text=True,
                          stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    contains(done.stderr, "BATON_KERNELS=neon is not a set of kernels", "scalar, avx2 or avx512")


main()
