// SPDX-License-Identifier: Apache-2.0
/* log.h - one line per event on stderr: time, level, "layer: what happened, values with units".
 *
 * The request id comes first in the text where there is one.  Layers up to `model` never log above
 * debug; a function logs or returns an error, never both. */
#ifndef BATON_BASE_LOG_H
#define BATON_BASE_LOG_H

typedef enum LogLevel { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF } LogLevel;

void log_set_level(LogLevel level);
bool log_level_from(const char *name, LogLevel *out); /* debug, info, warning, error, critical */
bool log_enabled(LogLevel level);
void log_write(LogLevel level, const char *format, ...) PRINTF(2, 3);

#define log_debug(...) (log_enabled(LOG_DEBUG) ? log_write(LOG_DEBUG, __VA_ARGS__) : (void)0)
#define log_info(...) (log_enabled(LOG_INFO) ? log_write(LOG_INFO, __VA_ARGS__) : (void)0)
#define log_warn(...) (log_enabled(LOG_WARN) ? log_write(LOG_WARN, __VA_ARGS__) : (void)0)
#define log_error(...) (log_enabled(LOG_ERROR) ? log_write(LOG_ERROR, __VA_ARGS__) : (void)0)

#endif
