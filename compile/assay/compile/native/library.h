// A library of compiled kernels, loaded.
#ifndef ASSAY_LIBRARY_H_
#define ASSAY_LIBRARY_H_

#include "support.h"

namespace assay {

// On Linux, libraries are loaded here and not by the system's loader: they are linked against nothing, import
// the few functions of backend_symbol, and so a program without any dynamic loader can load them too.
class Library {
 public:
  Library() = default;
  Library(const Library &) = delete;
  Library &operator=(const Library &) = delete;
  ~Library();

  bool load(const char *path);
  // The address of an exported symbol, or null.
  void *symbol(const char *name) const;

 private:
#if defined(__linux__)
  char *base_ = nullptr;
  size_t span_ = 0;
  const void *symbols_ = nullptr;
  const char *names_ = nullptr;
  size_t count_ = 0;
#else
  void *handle_ = nullptr;
#endif
};

}  // namespace assay

#endif
