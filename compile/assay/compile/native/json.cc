#include "json.h"

namespace assay {

namespace {
constexpr int kDeepest = 100;
constexpr size_t kBlock = 1 << 16;
}  // namespace

const Json *Json::member(const char *name) const {
  if (kind != Kind::kObject) return nullptr;
  for (const Json *each = first; each != nullptr; each = each->next)
    if (strcmp(each->key, name) == 0) return each;
  return nullptr;
}

const char *Json::text_of(const char *name, const char *otherwise) const {
  const Json *found = member(name);
  return found != nullptr && found->kind == Kind::kText ? found->text : otherwise;
}

JsonDocument::~JsonDocument() {
  for (void *block : blocks_) free(block);
}

void *JsonDocument::keep(size_t bytes) {
  bytes = rounded_up(bytes, sizeof(void *));
  if (bytes > left_) {
    left_ = bytes > kBlock ? bytes : kBlock;
    free_ = static_cast<char *>(checked(malloc(left_)));
    blocks_.push(free_);
  }
  void *memory = free_;
  free_ += bytes;
  left_ -= bytes;
  return memory;
}

class JsonParser {
 public:
  JsonParser(JsonDocument &document, const char *text, size_t size)
      : document_(document), at_(text), end_(text + size) {}

  Json *document() {
    Json *value = parse_value(0);
    skip();
    return value != nullptr && at_ == end_ ? value : nullptr;
  }

 private:
  void skip() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }
  bool take(char wanted) {
    skip();
    if (at_ >= end_ || *at_ != wanted) return false;
    ++at_;
    return true;
  }
  bool word(const char *text) {
    const size_t length = strlen(text);
    if (static_cast<size_t>(end_ - at_) < length || memcmp(at_, text, length) != 0) return false;
    at_ += length;
    return true;
  }
  Json *made(Kind kind) {
    Json *value = static_cast<Json *>(document_.keep(sizeof(Json)));
    *value = Json();
    value->kind = kind;
    return value;
  }

  Json *parse_value(int depth) {
    skip();
    if (at_ >= end_ || depth > kDeepest) return nullptr;
    switch (*at_) {
      case '{':
        return parse_children(Kind::kObject, '}', depth);
      case '[':
        return parse_children(Kind::kArray, ']', depth);
      case '"':
        return parse_text();
      case 't':
      case 'f': {
        Json *value = made(Kind::kBool);
        value->number = *at_ == 't';
        return word(*at_ == 't' ? "true" : "false") ? value : nullptr;
      }
      case 'n':
        return word("null") ? made(Kind::kNull) : nullptr;
      default:
        return parse_number();
    }
  }

  Json *parse_children(Kind kind, char close, int depth) {
    ++at_;
    Json *parent = made(kind);
    Json *last = nullptr;
    if (take(close)) return parent;
    do {
      const char *key = nullptr;
      if (kind == Kind::kObject) {
        skip();
        Json *name = at_ < end_ && *at_ == '"' ? parse_text() : nullptr;
        if (name == nullptr || !take(':')) return nullptr;
        key = name->text;
      }
      Json *child = parse_value(depth + 1);
      if (child == nullptr) return nullptr;
      child->key = key;
      (last == nullptr ? parent->first : last->next) = child;
      last = child;
      ++parent->count;
    } while (take(','));
    return take(close) ? parent : nullptr;
  }

  Json *parse_text() {
    const char *start = ++at_;
    while (at_ < end_ && *at_ != '"') at_ += *at_ == '\\' ? 2 : 1;
    if (at_ >= end_) return nullptr;
    Json *value = made(Kind::kText);
    char *text = static_cast<char *>(document_.keep(static_cast<size_t>(at_ - start) + 1));
    value->text = text;
    for (const char *from = start; from < at_; ++from) {
      if (*from != '\\') {
        *text++ = *from;
      } else if (*++from == 'u') {
        if (!unescape(from, text)) return nullptr;
      } else {
        *text++ = escaped(*from);
      }
    }
    *text = 0;
    ++at_;
    return value;
  }

  static char escaped(char letter) {
    switch (letter) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'b':
        return '\b';
      case 'f':
        return '\f';
      default:
        return letter;
    }
  }

  // Four hexadecimal digits as UTF-8; halves of a surrogate pair, which no name has, each by itself.
  bool unescape(const char *&from, char *&text) {
    if (at_ - from < 5) return false;
    unsigned code = 0;
    for (int i = 1; i <= 4; ++i) {
      const char c = from[i];
      const int lower = c | 0x20;
      if (c >= '0' && c <= '9')
        code = code * 16 + static_cast<unsigned>(c - '0');
      else if (lower >= 'a' && lower <= 'f')
        code = code * 16 + static_cast<unsigned>(lower - 'a') + 10;
      else
        return false;
    }
    from += 4;
    if (code < 0x80) {
      *text++ = static_cast<char>(code);
    } else if (code < 0x800) {
      *text++ = static_cast<char>(0xC0 | code >> 6);
      *text++ = static_cast<char>(0x80 | (code & 0x3F));
    } else {
      *text++ = static_cast<char>(0xE0 | code >> 12);
      *text++ = static_cast<char>(0x80 | (code >> 6 & 0x3F));
      *text++ = static_cast<char>(0x80 | (code & 0x3F));
    }
    return true;
  }

  // A number that is no whole one of 64 bits is kept as real, without a value: nothing here reads one.
  Json *parse_number() {
    const char *start = at_;
    const bool negative = *at_ == '-';
    if (negative) ++at_;
    int64_t number = 0;
    bool whole = at_ < end_ && *at_ >= '0' && *at_ <= '9';
    if (!whole) return nullptr;
    for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; ++at_) {
      if (__builtin_mul_overflow(number, 10, &number) || __builtin_sub_overflow(number, *at_ - '0', &number))
        whole = false;
    }
    while (at_ < end_ && strchr("+-.eE0123456789", *at_) != nullptr && *at_ != 0) {
      whole = false;
      ++at_;
    }
    if (at_ == start) return nullptr;
    if (whole && !negative && __builtin_sub_overflow(static_cast<int64_t>(0), number, &number)) whole = false;
    Json *value = made(whole ? Kind::kInteger : Kind::kReal);
    value->number = whole ? number : 0;
    return value;
  }

  JsonDocument &document_;
  const char *at_, *end_;
};

const Json *JsonDocument::parse(const char *text, size_t size, const char *name) {
  const Json *value = JsonParser(*this, text, size).document();
  if (value == nullptr) fail("%s is damaged: it is no JSON.", name);
  return value;
}

}  // namespace assay
