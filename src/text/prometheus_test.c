// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <math.h>
#include <stdlib.h>
#include "text.h"
#include <cmocka.h>

/* As floatToGoString() of prometheus_client 0.2x writes them. */
static void numbers_look_as_pythons_client_writes_them(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0.0"},           {3, "3.0"},
        {0.001, "0.001"},     {999999, "999999.0"},
        {1000000, "1e+06"},   {1234567, "1.234567e+06"},
        {-1234567, "-1234567.0"}, {1795478298.52, "1.79547829852e+09"},
        {12345678901234.5, "1.23456789012345e+013"}, {1e16, "1e+16"},
        {1e-7, "1e-07"},      {INFINITY, "+Inf"},
        {-INFINITY, "-Inf"},  {NAN, "NaN"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf out = {0}, want = {0};
        prom_value(&out, "x", "", cases[i].value);
        buf_printf(&want, "x %s\n", cases[i].text);
        assert_string_equal(out.at, want.at);
    }
}

static void names_labels_and_help_are_escaped(void **state) {
    (void)state;
    auto_buf Buf out = {0}, labels = {0};
    const char *pairs[] = {"model", "a\"b\\c\nd", "engine", "0"};
    prom_labels(&labels, pairs, 2);
    prom_family(&out, "vllm:x", "counter", "Line\nand \\ and \".");
    prom_value(&out, "vllm:x", labels.at, 1);
    assert_string_equal(out.at, "# HELP vllm:x Line\\nand \\\\ and \".\n"
                                "# TYPE vllm:x counter\n"
                                "vllm:x{model=\"a\\\"b\\\\c\\nd\",engine=\"0\"} 1.0\n");
}

static void a_histogram_is_written_with_cumulative_buckets(void **state) {
    (void)state;
    static const double bounds[] = {0.001, 1, 2.5};
    Histogram h;
    histogram_init(&h, bounds, 3);
    const double observed[] = {0.0005, 0.5, 0.75, 9};
    for (size_t i = 0; i < COUNT_OF(observed); i++) histogram_observe(&h, observed[i]);
    auto_buf Buf out = {0};
    prom_histogram(&out, "t", "engine=\"0\"", &h);
    assert_string_equal(out.at, "t_bucket{engine=\"0\",le=\"0.001\"} 1.0\n"
                                "t_bucket{engine=\"0\",le=\"1.0\"} 3.0\n"
                                "t_bucket{engine=\"0\",le=\"2.5\"} 3.0\n"
                                "t_bucket{engine=\"0\",le=\"+Inf\"} 4.0\n"
                                "t_count{engine=\"0\"} 4.0\n"
                                "t_sum{engine=\"0\"} 10.2505\n");
    buf_clear(&out);
    histogram_init(&h, bounds, 1);
    prom_histogram(&out, "t", "", &h);
    assert_string_equal(out.at, "t_bucket{le=\"0.001\"} 0.0\nt_bucket{le=\"+Inf\"} 0.0\n"
                                "t_count 0.0\nt_sum 0.0\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_look_as_pythons_client_writes_them),
        cmocka_unit_test(names_labels_and_help_are_escaped),
        cmocka_unit_test(a_histogram_is_written_with_cumulative_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
