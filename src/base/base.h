// SPDX-License-Identifier: Apache-2.0
/* base.h - what every other layer stands on: errors, memory, strings, time, log, counters, fault
 * points.
 *
 * This header alone is included, here and elsewhere; each part below is a page of its own.
 * Thread: everything here may be called from any thread; objects are not shared unless they say so.
 */
#ifndef BATON_BASE_H
#define BATON_BASE_H

#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define BATON_VERSION "0.1.0"

#include "limits.h"
#include "err.h"
#include "mem.h"
#include "buf.h"
#include "clock.h"
#include "fault.h"
#include "file.h"
#include "flags.h"
#include "log.h"
#include "metric.h"

#endif
