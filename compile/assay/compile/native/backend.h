// The functions that compiled kernels call, and the threads that run their parallel loops.
#ifndef ASSAY_BACKEND_H_
#define ASSAY_BACKEND_H_

#include <stdint.h>

namespace assay {

// TVMFFIAny of tvm-ffi's c_api.h: 16 bytes.
struct Value {
  int32_t type_index;
  uint32_t padding;
  int64_t value;
};
static_assert(sizeof(Value) == 16, "the layout of TVMFFIAny");
constexpr int32_t kInt = 1, kTensor = 7;  // kTVMFFIInt, kTVMFFIDLTensorPtr

// DLTensor of https://dmlc.github.io/dlpack/latest/c_api.html.
struct Tensor {
  void *data;
  int32_t device_type, device_id;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
constexpr int32_t kCpu = 1;

typedef int (*Function)(void *self, const Value *arguments, int32_t count, Value *result);

// An address that kernels may need, by the name that they import; null for none.
void *backend_symbol(const char *name);

// A variable of a kernel library that holds the address of one of our functions: what is stored there.
void *context_symbol(const char *name);

class Threads;
Threads *start_threads(int count);  // 0: one on each CPU that the process may use
void stop_threads(Threads *threads);

// While one exists, the kernels that this thread calls run their parallel loops on these threads.
class UseThreads {
 public:
  explicit UseThreads(Threads *threads);
  UseThreads(const UseThreads &) = delete;
  UseThreads &operator=(const UseThreads &) = delete;
  ~UseThreads();
};

// What a kernel that failed has raised, on whichever thread.
const char *raised_error();

}  // namespace assay

#endif
