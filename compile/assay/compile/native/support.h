// What the runtime has in place of the C++ standard library, which it does without: it links against libc
// alone, so that one program of some 200 kB runs on every Linux. Memory that runs out ends the process.
#ifndef ASSAY_SUPPORT_H_
#define ASSAY_SUPPORT_H_

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

inline void *operator new(size_t, void *place) noexcept { return place; }

namespace assay {

constexpr size_t kAlignment = 64;  // of all that kernels read and write

// Note what is wrong, for assay_error(); gives false, for `return fail(...)`.
bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *last_error();

inline void *checked(void *memory) {
  if (memory == nullptr) {
    fputs("assay: out of memory\n", stderr);
    abort();
  }
  return memory;
}

inline size_t rounded_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

#if defined(_WIN32)
inline void *allocate_aligned(size_t bytes) { return checked(_aligned_malloc(rounded_up(bytes + 1, 64), 64)); }
inline void free_aligned(void *memory) { _aligned_free(memory); }
#else
inline void *allocate_aligned(size_t bytes) {
  return checked(aligned_alloc(kAlignment, rounded_up(bytes + 1, kAlignment)));
}
inline void free_aligned(void *memory) { free(memory); }
#endif

template <typename T>
T *construct(T *place) {
  return new (place) T();
}

// A growing array of plain data.
template <typename T>
class Array {
 public:
  Array() = default;
  Array(const Array &) = delete;
  Array &operator=(const Array &) = delete;
  ~Array() { free(items_); }

  void push(const T &item) {
    if (count_ == room_) {
      room_ = room_ ? 2 * room_ : 16;
      items_ = static_cast<T *>(checked(realloc(items_, room_ * sizeof(T))));
    }
    items_[count_++] = item;
  }
  void fill(size_t count, const T &item) {
    count_ = 0;
    for (size_t i = 0; i < count; ++i) push(item);
  }
  void clear() { count_ = 0; }
  size_t size() const { return count_; }
  T &operator[](size_t index) { return items_[index]; }
  const T &operator[](size_t index) const { return items_[index]; }
  T *begin() { return items_; }
  T *end() { return items_ + count_; }
  const T *begin() const { return items_; }
  const T *end() const { return items_ + count_; }

 private:
  T *items_ = nullptr;
  size_t count_ = 0, room_ = 0;
};

// 64-byte aligned memory that is freed with its owner.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  ~Memory() { free_aligned(data_); }

  // At least this many bytes, whose content is not kept.
  char *room(size_t bytes) {
    if (bytes > bytes_ || data_ == nullptr) {
      free_aligned(data_);
      data_ = static_cast<char *>(allocate_aligned(bytes));
      bytes_ = bytes;
    }
    return data_;
  }
  char *data() const { return data_; }

 private:
  char *data_ = nullptr;
  size_t bytes_ = 0;
};

// The path FOLDER/NAME.
class Path {
 public:
  Path(const char *folder, const char *name) { snprintf(text_, sizeof text_, "%s/%s", folder, name); }
  const char *text() const { return text_; }

 private:
  char text_[4096];
};

// The content of a file: mapped copy-on-write where the system can, else read.
class File {
 public:
  File() = default;
  File(const File &) = delete;
  File &operator=(const File &) = delete;
  ~File();

  bool open(const char *path);
  char *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  char *data_ = nullptr;
  size_t size_ = 0;
};

bool file_exists(const char *path);

}  // namespace assay

#endif
