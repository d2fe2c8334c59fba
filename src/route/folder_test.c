// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "folder.h"
#include "io/loop_test.h"

#include "objects_test.h"

typedef struct Bench {
    Loop *loop;
    RouteStore *store;
    RouteFolder *folder;
    char path[64];
} Bench;

static Bench b;

#define WAIT_FOR(condition) LOOP_WAIT_FOR(b.loop, condition)

static void put_file(const char *name, const char *text) {
    char path[128], hidden[128];
    snprintf(path, sizeof path, "%s/%s", b.path, name);
    snprintf(hidden, sizeof hidden, "%s/.%s.new", b.path, name);
    FILE *file = fopen(hidden, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    fclose(file);
    assert_int_equal(rename(hidden, path), 0);
}

static void drop_file(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", b.path, name);
    assert_int_equal(unlink(path), 0);
}

static int make_folder(void **state) {
    (void)state;
    b = (Bench){.loop = loop_new(), .store = route_store_new(), .path = "/tmp/baton-route-XXXXXX"};
    return mkdtemp(b.path) ? 0 : -1;
}

static int drop_folder(void **state) {
    (void)state;
    char command[128];
    route_folder_close(b.folder);
    route_store_free(b.store);
    loop_free(b.loop);
    snprintf(command, sizeof command, "rm -r %s", b.path);
    return system(command);
}

static void open_folder(const char *path) {
    Err err = {0};
    b.folder = route_folder_open(b.loop, path, b.store, &err);
    if (!b.folder) fail_msg("%s", err.message);
}

static const char *const *models(void) { return route_store_table(b.store)->models; }
static size_t model_count(void) { return route_store_table(b.store)->model_count; }

static const RouteServer *server_of(const char *model) {
    static RouteFound found;
    Err err = {0};
    return route_table_find(route_store_table(b.store), str_of(model), STR("/"), (HttpHeaders){0},
                            0, &found, &err)
               ? found.server
               : NULL;
}

static void a_folder_is_read_and_what_changes_is_read_again(void **state) {
    (void)state;
    put_file("a.yaml",
             SIMPLE_ROUTE("r", "m", "s") "\n---\n" SIMPLE_SERVER("s", "a") "\n---\n---\n");
    put_file("b.yml", POD("p", "app: a", "podIP: 127.0.0.1"));
    put_file(
        "c.json",
        "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"other\"}}");
    put_file("empty.yaml", "");
    put_file("notes.txt", "not read: {");
    open_folder(b.path);
    assert_int_equal(model_count(), 1);
    assert_int_equal(server_of("m")->member_count, 1);
    put_file("d.yaml", SIMPLE_ROUTE("r2", "m2", "s"));
    WAIT_FOR(model_count() == 2);
    assert_string_equal(models()[1], "m2");
    put_file("b.yml", POD("p", "app: a", "podIP: 127.0.0.1") "\n---\n" POD("p2", "app: a",
                                                                           "podIP: localhost"));
    WAIT_FOR(server_of("m")->member_count == 2);
    drop_file("d.yaml");
    WAIT_FOR(model_count() == 1);
    drop_file("b.yml");
    WAIT_FOR(!server_of("m"));
    assert_int_equal(route_folder_failures(b.folder), 0);
}

static void a_file_with_a_fault_keeps_its_last_good_objects(void **state) {
    (void)state;
    static const char *const faults[] = {
        SIMPLE_ROUTE("r2", "m2", "s") "\n---\nspec: {\n",                          /* cut off */
        SIMPLE_ROUTE("r2", "m2", "s") "\n---\n" ROUTE_HEAD("r") "{modelName: m}}", /* no rules */
        SIMPLE_ROUTE("r2", "m2",
                     "s") "\n---\n{apiVersion: v1, kind: ModelRoute, metadata: {name: r}}",
        SIMPLE_ROUTE("r2", "m2", "s") "\n---\njust text",
    };
    put_file("a.yaml", SIMPLE_ROUTE("r", "m", "s"));
    open_folder(b.path);
    for (size_t i = 0; i < COUNT_OF(faults); i++) {
        put_file("a.yaml", faults[i]);
        WAIT_FOR(route_folder_failures(b.folder) == i + 1);
        loop_run_for(b.loop, 20);
        assert_int_equal(model_count(), 1); /* never half of a file */
        assert_string_equal(models()[0], "m");
    }
    put_file("a.yaml", SIMPLE_ROUTE("r2", "m2", "s"));
    WAIT_FOR(!strcmp(models()[0], "m2"));
}

static void the_last_of_two_objects_of_one_name_counts(void **state) {
    (void)state;
    put_file("a.yaml", SIMPLE_ROUTE("r", "first", "s"));
    put_file("b.yaml", SIMPLE_ROUTE("r", "second", "s"));
    open_folder(b.path);
    assert_int_equal(model_count(), 1);
    assert_string_equal(models()[0], "second");
    drop_file("b.yaml");
    WAIT_FOR(!strcmp(models()[0], "first"));
}

static void a_fault_at_the_start_names_file_line_and_cause(void **state) {
    (void)state;
    const struct { const char *name, *text, *want;
    } cases[] = {
        {"a.yaml", "kind: ModelRoute\nspec: {\n  a: b: c\n", "/a.yaml:3: yaml line 3, column "},
        {"a.json", "{\"kind\":\n]", "/a.json:2: Expecting value: line 2 column 1 (char 9)"},
        {"a.yaml",
         SERVER_HEAD("s") "{inferenceEngine: SGLang, workloadPort: {port: 1}, workloadSelector: "
                          "{matchLabels: {a: b}, " PD_GROUP "}}}",
         "/a.yaml: ModelServer default/s: the kv connector sglang is not supported yet"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        put_file(cases[i].name, cases[i].text);
        assert_null(route_folder_open(b.loop, b.path, b.store, &err));
        if (!strstr(err.message, cases[i].want))
            fail_msg("'%s' is not in '%s'", cases[i].want, err.message);
        assert_memory_equal(err.message, b.path, strlen(b.path));
        drop_file(cases[i].name);
    }
    Err err = {0};
    assert_null(route_folder_open(b.loop, "/nowhere/at/all", b.store, &err));
    assert_string_equal(err.message,
                        "could not watch '/nowhere/at/all': no such file or directory");
    assert_string_equal(err.hint, "--objects takes a folder of manifests.");
}

static void what_a_cluster_holds_is_understood(void **state) {
    (void)state;
    size_t length;
    Err err = {0};
    auto_free char *text = file_read("test/data/route/cluster.json", MIB, &length, &err);
    assert_non_null(text);
    put_file("cluster.json", text);
    open_folder(b.path);
    assert_int_equal(model_count(), 1);
    const RouteServer *server = server_of("deepseek-v2-lite");
    assert_non_null(server);
    assert_true(server->apart);
    assert_int_equal(server->connector, CONNECT_MOONCAKE);
    assert_string_equal(server->model, "deepseek-ai/DeepSeekV2");
    assert_int_equal(server->attempts, 3);
    assert_int_equal(server->member_count, 1);
    assert_int_equal(server->members[0].prefill_count, 1);
    assert_string_equal(server->members[0].peer, "127.1.0.1:8000");
    assert_string_equal(server->members[0].pod->name,
                        "deepseek-v2-lite-deepseek-v2-lite-0-decode-0-0");
    assert_string_equal(server->prefill[0].peer, "127.1.0.2:8000");
}

static void the_examples_make_a_pair(void **state) {
    (void)state;
    open_folder("examples");
    const RouteServer *server = server_of("smollm2");
    assert_non_null(server);
    assert_true(server->apart);
    assert_int_equal(server->connector, CONNECT_NIXL);
    assert_int_equal(server->member_count, 1);
    assert_string_equal(server->members[0].peer, "127.0.0.1:8200");
    assert_string_equal(server->prefill[0].peer, "127.0.0.1:8100");
    assert_int_equal(server->timeout_us, 300000000);
    for (RouteIgnored field = 0; field < ROUTE_IGNORED; field++)
        assert_int_equal(route_store_ignored(b.store, field), 0);
}

int main(void) {
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_folder_is_read_and_what_changes_is_read_again,
                                        make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(a_file_with_a_fault_keeps_its_last_good_objects,
                                        make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(the_last_of_two_objects_of_one_name_counts, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(a_fault_at_the_start_names_file_line_and_cause, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(what_a_cluster_holds_is_understood, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(the_examples_make_a_pair, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
