// A parser for JSON (RFC 8259) from files that are not trusted: limited depth, no recursion without bound.
#ifndef ASSAY_JSON_H_
#define ASSAY_JSON_H_

#include "support.h"

namespace assay {

enum class Kind : uint8_t { kNull, kBool, kInteger, kReal, kText, kArray, kObject };

// A value; children of arrays and objects are chained. Text is without escapes, and ends with a zero.
struct Json {
  Kind kind = Kind::kNull;
  int64_t number = 0;  // of an integer or a truth value
  const char *text = nullptr;
  const char *key = nullptr;  // within an object
  const Json *first = nullptr, *next = nullptr;
  size_t count = 0;  // children

  bool is(const char *other) const { return kind == Kind::kText && strcmp(text, other) == 0; }
  // The member of an object, or null.
  const Json *member(const char *name) const;
  // The text of a member, or `otherwise`.
  const char *text_of(const char *name, const char *otherwise = "") const;
};

// Owns the values and texts of one document.
class JsonDocument {
 public:
  JsonDocument() = default;
  JsonDocument(const JsonDocument &) = delete;
  JsonDocument &operator=(const JsonDocument &) = delete;
  ~JsonDocument();

  // Null where the text is no JSON; `name` is for the message.
  const Json *parse(const char *text, size_t size, const char *name);

 private:
  friend class JsonParser;
  void *keep(size_t bytes);
  Array<void *> blocks_;
  char *free_ = nullptr;
  size_t left_ = 0;
};

}  // namespace assay

#endif
