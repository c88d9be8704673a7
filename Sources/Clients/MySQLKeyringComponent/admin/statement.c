/* SPDX-License-Identifier: MIT */
/* MySQL tells a variable's check nothing of GLOBAL or PERSIST, so the statement's text has to. Whatever is not plainly one of the
 * forms below is "unclear", and the caller refuses it: a guess might leave MySQL and keyringd with different opinions of what
 * outlives a restart.
 *
 *     SET [GLOBAL | PERSIST | PERSIST_ONLY] component.variable = value
 *     SET @@{global | persist | persist_only}.component.variable = value
 *
 * One assignment only: MySQL checks all of a statement's values before it assigns any, and a later one that is refused would leave
 * this one set on keyringd alone. */
#include <string.h>
#include <strings.h>

#include "admin.h"

enum kind { END, WORD, QUOTED_NAME, TEXT, SIGN, BROKEN };

struct token {
  enum kind kind;
  const char *begin; /* of the contents, for what is quoted */
  size_t length;
};

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || (c & 0x80);
}

/* Past blanks and comments. NULL: a comment that MySQL executes (`/``*!`), or one without an end. */
static const char *skip(const char *at) {
  for (;;) {
    while (is_space(*at)) at++;
    if (*at == '#' || (at[0] == '-' && at[1] == '-' && (is_space(at[2]) || !at[2]))) {
      while (*at && *at != '\n') at++;
    } else if (at[0] == '/' && at[1] == '*') {
      if (at[2] == '!' || at[2] == '+') return NULL;
      at = strstr(at + 2, "*/");
      if (!at) return NULL;
      at += 2;
    } else {
      return at;
    }
  }
}

/* A quoted piece; two quotes inside are one. */
static struct token quoted(const char **at, char quote) {
  const char *end = *at + 1;
  for (; *end; end++) {
    if (*end == '\\' && quote != '`' && end[1]) {
      end++;
    } else if (*end == quote) {
      if (end[1] != quote) break;
      end++;
    }
  }
  struct token token = {quote == '\'' ? TEXT : QUOTED_NAME, *at + 1, (size_t)(end - *at) - 1};
  if (!*end) return (struct token){BROKEN, end, 0};
  *at = end + 1;
  return token;
}

static struct token next(const char **at) {
  const char *begin = skip(*at);
  if (!begin) return (struct token){BROKEN, *at, 0};
  *at = begin;
  if (!*begin) return (struct token){END, begin, 0};
  if (*begin == '\'' || *begin == '"' || *begin == '`') return quoted(at, *begin);
  const char *end = begin;
  while (is_word(*end)) end++;
  struct token token = {end == begin ? SIGN : WORD, begin, end == begin ? 1 : (size_t)(end - begin)};
  *at = begin + token.length;
  return token;
}

static bool is(struct token token, const char *text) {
  if (token.kind != WORD && token.kind != SIGN && token.kind != QUOTED_NAME) return false;
  return token.length == strlen(text) && strncasecmp(token.begin, text, token.length) == 0;
}

static bool take(const char **at, const char *text) {
  const char *before = *at;
  struct token token = next(at);
  if (is(token, text)) return true;
  *at = before;
  return false;
}

static enum admin_scope scope(const char **at) {
  if (take(at, "global")) return ADMIN_GLOBAL;
  if (take(at, "persist")) return ADMIN_PERSIST;
  if (take(at, "persist_only")) return ADMIN_PERSIST_ONLY;
  return ADMIN_UNCLEAR;
}

/* One value, to the end of the statement: no second assignment, no second statement. */
static bool is_one_value(const char *at) {
  int depth = 0;
  bool any = false;
  for (;;) {
    struct token token = next(&at);
    if (token.kind == BROKEN) return false;
    if (token.kind == END) return any && depth == 0;
    if (token.kind == SIGN) {
      char sign = *token.begin;
      if (sign == ',' && depth == 0) return false;
      if (sign == ';') return any && depth == 0 && next(&at).kind == END;
      if (sign == '(') depth++;
      if (sign == ')') depth--;
    }
    any = true;
  }
}

enum admin_scope admin_scope_of(const char *statement, const char *component, const char *variable) {
  const char *at = statement;
  if (!take(&at, "set")) return ADMIN_UNCLEAR;
  bool signs = take(&at, "@");
  if (signs && !take(&at, "@")) return ADMIN_UNCLEAR;
  enum admin_scope found = scope(&at);
  if (signs && !take(&at, ".")) return ADMIN_UNCLEAR;
  if (!take(&at, component) || !take(&at, ".") || !take(&at, variable)) return ADMIN_UNCLEAR;
  /* `:=` or `=` */
  take(&at, ":");
  if (!take(&at, "=")) return ADMIN_UNCLEAR;
  return is_one_value(at) ? found : ADMIN_UNCLEAR;
}
