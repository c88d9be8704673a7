#include "CProtobufC.h"

#include <string.h>

// RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF.
static bool is_utf8(const unsigned char *text) {
  while (*text != 0) {
    unsigned char first = text[0];
    size_t more = first < 0x80 ? 0 : first < 0xc2 ? 4 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : 4;
    if (more == 4) {
      return false;
    }
    for (size_t i = 1; i <= more; i++) {
      if ((text[i] & 0xc0) != 0x80) {
        return false;
      }
    }
    if ((first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f) || (first == 0xf0 && text[1] < 0x90) ||
        (first == 0xf4 && text[1] > 0x8f)) {
      return false;
    }
    text += more + 1;
  }
  return true;
}

static keyring_message_verdict check_value(const ProtobufCFieldDescriptor *field, const void *value) {
  switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE: {
      const ProtobufCMessage *inner = *(ProtobufCMessage *const *)value;
      return inner == NULL ? KEYRING_MESSAGE_OK : keyring_message_check(inner);
    }
    case PROTOBUF_C_TYPE_STRING: {
      const char *text = *(char *const *)value;
      bool good = text == NULL || is_utf8((const unsigned char *)text);
      return good ? KEYRING_MESSAGE_OK : KEYRING_MESSAGE_NOT_UTF8;
    }
    case PROTOBUF_C_TYPE_ENUM: {
      int number;
      memcpy(&number, value, sizeof number);
      bool known = protobuf_c_enum_descriptor_get_value(field->descriptor, number) != NULL;
      return known ? KEYRING_MESSAGE_OK : KEYRING_MESSAGE_UNKNOWN_ENUM;
    }
    default:
      return KEYRING_MESSAGE_OK;
  }
}

static keyring_message_verdict check_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
  const char *base = (const char *)message;
  if (field->label == PROTOBUF_C_LABEL_REPEATED) {
    if (field->type != PROTOBUF_C_TYPE_MESSAGE && field->type != PROTOBUF_C_TYPE_STRING) {
      return KEYRING_MESSAGE_OK;  // no repeated enums in the contract; numbers and bytes need no check
    }
    size_t count;
    memcpy(&count, base + field->quantifier_offset, sizeof count);
    void *const *elements = *(void *const *const *)(base + field->offset);
    for (size_t i = 0; i < count; i++) {
      keyring_message_verdict verdict = check_value(field, &elements[i]);
      if (verdict != KEYRING_MESSAGE_OK) {
        return verdict;
      }
    }
    return KEYRING_MESSAGE_OK;
  }
  if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
    uint32_t set;
    memcpy(&set, base + field->quantifier_offset, sizeof set);
    if (set != field->id) {
      return KEYRING_MESSAGE_OK;
    }
  }
  return check_value(field, base + field->offset);
}

keyring_message_verdict keyring_message_check(const ProtobufCMessage *message) {
  if (message->n_unknown_fields != 0) {
    return KEYRING_MESSAGE_UNKNOWN_FIELD;
  }
  for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
    keyring_message_verdict verdict = check_field(message, &message->descriptor->fields[i]);
    if (verdict != KEYRING_MESSAGE_OK) {
      return verdict;
    }
  }
  return KEYRING_MESSAGE_OK;
}
