/* Linked with the kernels of a library for macOS or Windows, whose loaders want to know of every function where
   it comes from: what kernels call by name, passed on to the function that the runtime stores here. */
#include <stdint.h>

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

typedef void (*Raise)(const char *kind, const char **parts, int32_t count);

EXPORTED Raise __TVMFFIErrorSetRaisedFromCStrParts = 0;

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  if (__TVMFFIErrorSetRaisedFromCStrParts != 0) __TVMFFIErrorSetRaisedFromCStrParts(kind, parts, count);
}
