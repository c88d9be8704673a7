/* SPDX-License-Identifier: MIT */
/* What MySQL knows of the session that runs a statement, and what is said to it and to the error log. */
#include <stdio.h>
#include <string.h>

#include "admin.h"

enum { LINE_SIZE = 2048 };

void admin_log(enum mysql_abi_severity severity, const char *format, ...) {
  char line[LINE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  admin_mysql_log->emit("Keyring", __FILE__, __LINE__, severity, MYSQL_ABI_LOG_MESSAGE, line);
}

mysql_abi_session admin_session(void) {
  mysql_abi_session session = NULL;
  return admin_mysql_current->get(&session) == 0 ? session : NULL;
}

static mysql_abi_security_context security(mysql_abi_session session) {
  mysql_abi_security_context context = NULL;
  if (!session || admin_mysql_security->get(session, &context) != 0) return NULL;
  return context;
}

static void raise_error(int error, ...) {
  va_list arguments;
  va_start(arguments, error);
  admin_mysql_error->emit(error, 0, arguments);
  va_end(arguments);
}

bool admin_permitted(mysql_abi_session session) {
  mysql_abi_security_context context = security(session);
  /* One byte is written; whether a later MySQL writes an int is nothing to stumble over. */
  unsigned char super[sizeof(long long)] = {0};
  if (context) {
    if (admin_mysql_options->get(context, "privilege_super", super) == 0 && super[0]) return true;
    if (admin_mysql_grants->has(context, ADMIN_PRIVILEGE, sizeof ADMIN_PRIVILEGE - 1)) return true;
  }
  raise_error(MYSQL_ABI_ACCESS_DENIED, "SUPER or " ADMIN_PRIVILEGE);
  return false;
}

/* Names come from SQL: a line feed in one must not make a line of the log. */
static void put_name(mysql_abi_security_context context, const char *option, char *buffer, size_t size) {
  struct mysql_abi_text text = {NULL, 0};
  size_t used = 0;
  if (context && admin_mysql_options->get(context, option, &text) == 0 && text.bytes) {
    for (; used < text.length && used + 1 < size; used++) {
      unsigned char byte = (unsigned char)text.bytes[used];
      buffer[used] = byte < 32 || byte == 127 || byte == '\'' ? '?' : (char)byte;
    }
  }
  buffer[used] = 0;
}

void admin_user(mysql_abi_session session, char user[ADMIN_USER_SIZE]) {
  char name[64], host[ADMIN_USER_SIZE - 64 - 8];
  mysql_abi_security_context context = security(session);
  put_name(context, "user", name, sizeof name);
  put_name(context, "host_or_ip", host, sizeof host);
  snprintf(user, ADMIN_USER_SIZE, "'%s'@'%s'", name, host);
}

void admin_raise(const char *name, const char *why) { raise_error(MYSQL_ABI_FUNCTION_FAILED, name, why); }

void admin_warn(mysql_abi_session session, const char *name, const char *why) {
  if (session) admin_mysql_warning->emit(session, MYSQL_ABI_FUNCTION_FAILED, name, why);
}

bool admin_statement(mysql_abi_session session, char *text, size_t size) {
  mysql_abi_string string = NULL;
  text[0] = 0;
  if (!session || admin_mysql_attributes->get(session, "sql_text", &string) != 0 || !string) return false;
  bool good = admin_mysql_converter->to_buffer(string, text, size, "utf8mb4") == 0;
  admin_mysql_strings->destroy(string);
  text[size - 1] = 0;
  /* What was cut fills the buffer. */
  return good && strlen(text) + 8 < size;
}
