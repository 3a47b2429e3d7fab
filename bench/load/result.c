/* Samples and the one line of JSON that a run prints. */
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

int failures;
static bool first;

void fail(const char *format, ...)
{
    va_list arguments;
    if (++failures > 5)
        return; /* the first ones tell why; all are counted */
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

void samples_add(struct samples *samples, double milliseconds)
{
    if (samples->count == samples->size) {
        samples->size = 2 * samples->size + 1024;
        samples->values = realloc(samples->values, samples->size * sizeof *samples->values);
    }
    samples->values[samples->count++] = milliseconds;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void samples_print(const char *name, struct samples *samples)
{
    static const struct {
        const char *name;
        double at;
    } quantiles[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}, {"max", 1.0}};
    char key[64];
    if (!samples->count)
        return;
    qsort(samples->values, samples->count, sizeof *samples->values, by_value);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        size_t at = (size_t)(quantiles[i].at * (double)(samples->count - 1) + 0.5);
        snprintf(key, sizeof key, "%s_%s_ms", name, quantiles[i].name);
        result_number(key, samples->values[at]);
    }
}

void result_begin(void)
{
    first = true;
    putchar('{');
}

void result_number(const char *name, double value)
{
    printf("%s\"%s\": %.9g", first ? "" : ", ", name, value);
    first = false;
}

void result_end(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    result_number("failed", failures);
    result_number("generator_cpu_seconds",
                  (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                      (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    puts("}");
    fflush(stdout);
}
