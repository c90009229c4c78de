// Runs the threads of one block at a time as fibers of one thread of the CPU.
//
// A fiber runs until it waits for others, at a barrier of the block or to exchange values within its warp.
// Warps go on as soon as all of their threads wait; the block, when nothing else can. What a device leaves
// undefined is made to show: a value taken from a lane that does not take part is poison (a NaN), shared memory
// starts as poison, and fibers can be resumed in the opposite order, so that a missing barrier changes results.
#pragma once
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef ASSAY_WARP_SIZE
#define ASSAY_WARP_SIZE 32
#endif
#define ASSAY_SHARED __attribute__((section("assay_shared")))

// The linker's names of where the section begins and ends; absent where no kernel has shared memory.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_assay_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_assay_shared[];

namespace assay {

struct Index {
  unsigned x, y, z;
};

constexpr unsigned kMaximumThreads = 1024;
constexpr unsigned kStackBytes = 256 << 10;
constexpr unsigned kDynamicSharedBytes = 232 << 10;
constexpr uint64_t kPoison = 0x7fffffff7fffffffull;

enum State { kReady, kBarrier, kWarp, kDone };
enum Status { kFinished = 0, kTooManyThreads = 1, kNoMemory = 2 };

struct Fiber {
  jmp_buf context;
  ucontext_t start;
  State state;
  bool started;
  uint64_t offered;  // to the warp
};

struct Warp {
  uint64_t values[ASSAY_WARP_SIZE];
  bool present[ASSAY_WARP_SIZE];
};

// Visible outside, so that the compiler keeps none of it in registers while another fiber runs.
#define ASSAY_STATE __attribute__((visibility("default")))
ASSAY_STATE Fiber fibers[kMaximumThreads];
ASSAY_STATE Warp warps[kMaximumThreads / ASSAY_WARP_SIZE];
ASSAY_STATE jmp_buf scheduler;
ASSAY_STATE unsigned current;
ASSAY_STATE Index thread_index, block_index, block_size, grid_size;
ASSAY_STATE void (*body)(void** arguments);
ASSAY_STATE void** body_arguments;
alignas(1024) ASSAY_STATE char dynamic_shared[kDynamicSharedBytes];

static __attribute__((noinline)) void wait(State state) {
  Fiber& self = fibers[current];
  self.state = state;
  if (!_setjmp(self.context)) _longjmp(scheduler, 1);
}

static void run_forever() {
  for (;;) {
    body(body_arguments);
    wait(kDone);
  }
}

static __attribute__((noinline)) void resume(unsigned thread) {
  Fiber& fiber = fibers[thread];
  current = thread;
  thread_index = {thread % block_size.x, thread / block_size.x % block_size.y,
                  thread / (block_size.x * block_size.y)};
  if (_setjmp(scheduler)) return;
  if (fiber.started) _longjmp(fiber.context, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

static bool prepare(unsigned threads) {
  static char* stacks = nullptr;
  if (!stacks) {
    void* memory = mmap(nullptr, size_t{kMaximumThreads} * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    stacks = static_cast<char*>(memory);
  }
  for (unsigned i = 0; i < threads; i++) {
    Fiber& fiber = fibers[i];
    if (fiber.started) continue;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks + size_t{i} * kStackBytes;
    fiber.start.uc_stack.ss_size = kStackBytes;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_forever, 0);
  }
  return true;
}

// Give waiting lanes of a warp what the others offered; whether there were any.
static bool exchange(unsigned warp, unsigned threads) {
  unsigned first = warp * ASSAY_WARP_SIZE;
  bool any = false;
  for (unsigned lane = 0; lane < ASSAY_WARP_SIZE; lane++) {
    unsigned thread = first + lane;
    bool present = thread < threads && fibers[thread].state == kWarp;
    warps[warp].present[lane] = present;
    warps[warp].values[lane] = present ? fibers[thread].offered : kPoison;
    any |= present;
  }
  for (unsigned i = first; any && i < first + ASSAY_WARP_SIZE && i < threads; i++)
    if (fibers[i].state == kWarp) fibers[i].state = kReady;
  return any;
}

static void run_block(unsigned threads, bool reversed) {
  for (unsigned i = 0; i < threads; i++) fibers[i].state = kReady;
  for (;;) {
    for (unsigned i = 0; i < threads; i++) {
      unsigned thread = reversed ? threads - 1 - i : i;
      if (fibers[thread].state == kReady) resume(thread);
    }
    bool released = false;
    for (unsigned warp = 0; warp * ASSAY_WARP_SIZE < threads; warp++) released |= exchange(warp, threads);
    if (released) continue;
    for (unsigned i = 0; i < threads; i++)
      if (fibers[i].state == kBarrier) {
        fibers[i].state = kReady;
        released = true;
      }
    if (!released) return;
  }
}

// Every block of a launch, in turn. Several launches at a time in one process are the caller's to prevent.
static int run_grid(void (*kernel)(void**), void** arguments, const unsigned* grid, const unsigned* block,
                    bool reversed) {
  uint64_t threads = uint64_t{block[0]} * block[1] * block[2];
  if (threads > kMaximumThreads) return kTooManyThreads;
  if (!prepare(threads)) return kNoMemory;
  body = kernel;
  body_arguments = arguments;
  block_size = {block[0], block[1], block[2]};
  grid_size = {grid[0], grid[1], grid[2]};
  if (__start_assay_shared)
    for (char* at = __start_assay_shared; at + 8 <= __stop_assay_shared; at += 8) memcpy(at, &kPoison, 8);
  for (char* at = dynamic_shared; at < dynamic_shared + kDynamicSharedBytes; at += 8) memcpy(at, &kPoison, 8);
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        block_index = {x, y, z};
        run_block(threads, reversed);
      }
  return kFinished;
}

inline unsigned linear_thread() { return current; }
inline unsigned lane() { return current % ASSAY_WARP_SIZE; }

// The value that the lane ``source`` offers while this one offers ``value``.
template <class T>
T from_lane(T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "a lane exchanges up to 64 bits");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  fibers[current].offered = bits;
  wait(kWarp);
  const Warp& warp = warps[current / ASSAY_WARP_SIZE];
  bits = source < ASSAY_WARP_SIZE ? warp.values[source] : kPoison;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// Whether ``predicate`` holds in each lane that takes part, as a mask.
inline uint64_t ballot(bool predicate) {
  from_lane<uint32_t>(predicate, 0);
  const Warp& warp = warps[current / ASSAY_WARP_SIZE];
  uint64_t mask = 0;
  for (unsigned i = 0; i < ASSAY_WARP_SIZE; i++)
    if (warp.present[i] && warp.values[i]) mask |= uint64_t{1} << i;
  return mask;
}

template <class T>
struct Type {
  using type = T;
};
template <class T>
struct WithoutReference : Type<T> {};
template <class T>
struct WithoutReference<T&> : Type<T> {};
template <class T, T... I>
struct Sequence {};
template <int N>
using Count = __make_integer_seq<Sequence, int, N>;

}  // namespace assay
