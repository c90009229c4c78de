#include "support.h"

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace assay {

namespace {
thread_local char message[512] = "";
}

bool fail(const char *format, ...) {
  char text[sizeof message];  // an argument may be the message before
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  memcpy(message, text, sizeof message);
  return false;
}

const char *last_error() { return message; }

bool file_exists(const char *path) {
  FILE *stream = fopen(path, "rb");
  if (stream == nullptr) return false;
  fclose(stream);
  return true;
}

#if defined(_WIN32)

bool File::open(const char *path) {
  FILE *stream = fopen(path, "rb");
  if (stream == nullptr) return fail("%s cannot be opened.", path);
  _fseeki64(stream, 0, SEEK_END);
  const long long size = _ftelli64(stream);
  rewind(stream);
  data_ = static_cast<char *>(allocate_aligned(static_cast<size_t>(size)));
  size_ = fread(data_, 1, static_cast<size_t>(size), stream);
  fclose(stream);
  return size_ == static_cast<size_t>(size) || fail("%s cannot be read.", path);
}

File::~File() { free_aligned(data_); }

#else

bool File::open(const char *path) {
  const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return fail("%s cannot be opened.", path);
  const off_t size = lseek(descriptor, 0, SEEK_END);
  void *mapped = MAP_FAILED;
  if (size > 0) mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
  ::close(descriptor);
  if (mapped == MAP_FAILED) return fail("%s is empty, or cannot be mapped.", path);
  data_ = static_cast<char *>(mapped);
  size_ = static_cast<size_t>(size);
  return true;
}

File::~File() {
  if (data_ != nullptr) munmap(data_, size_);
}

#endif

}  // namespace assay
