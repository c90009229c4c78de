// Where the system's loader loads kernels: macOS and Windows.
#if !defined(__linux__)

#include "backend.h"
#include "library.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace assay {

namespace {
const char *const kContext[] = {"__TVMBackendParallelLaunch", "__TVMBackendAllocWorkspace",
                                "__TVMBackendFreeWorkspace", "__TVMFFIErrorSetRaisedFromCStrParts"};
}

bool Library::load(const char *path) {
#if defined(_WIN32)
  char native[MAX_PATH];  // LoadLibrary wants backslashes
  if (strlen(path) >= sizeof native) return fail("%s is too long a path.", path);
  strcpy(native, path);
  for (char *at = native; *at != 0; ++at)
    if (*at == '/') *at = '\\';
  handle_ = reinterpret_cast<void *>(LoadLibraryA(native));
  if (handle_ == nullptr) return fail("%s cannot be loaded (error %lu).", path, GetLastError());
#else
  handle_ = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) return fail("%s", dlerror());
#endif
  for (const char *name : kContext) {
    void **variable = static_cast<void **>(symbol(name));
    if (variable != nullptr) *variable = context_symbol(name);
  }
  return true;
}

void *Library::symbol(const char *name) const {
#if defined(_WIN32)
  return reinterpret_cast<void *>(GetProcAddress(static_cast<HMODULE>(handle_), name));
#else
  return dlsym(handle_, name);
#endif
}

Library::~Library() {
  if (handle_ == nullptr) return;
#if defined(_WIN32)
  FreeLibrary(static_cast<HMODULE>(handle_));
#else
  dlclose(handle_);
#endif
}

}  // namespace assay

#endif
