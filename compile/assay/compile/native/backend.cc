#include "backend.h"

#include <math.h>
#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#else
#include <unistd.h>
#endif

#include "support.h"

namespace assay {

namespace {

// TVM's c_backend_api.h.
struct Group {
  void *sync_handle;
  int32_t num_task;
};
typedef int (*Task)(int task, Group *group, void *closure);

constexpr int kMostThreads = 256;

pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
char error_text[512] = "";

}  // namespace

// Workers wait for a parallel loop, take one task each, and the caller takes the first.
class Threads {
 public:
  int start(int count) {
    pthread_mutex_init(&lock_, nullptr);
    pthread_cond_init(&begin_, nullptr);
    pthread_cond_init(&end_, nullptr);
    for (int i = 1; i < count && i < kMostThreads; ++i) {
      if (pthread_create(&workers_[i], nullptr, work, this) != 0) break;
      count_ = i + 1;
    }
    return count_;
  }

  void stop() {
    pthread_mutex_lock(&lock_);
    stopping_ = true;
    pthread_cond_broadcast(&begin_);
    pthread_mutex_unlock(&lock_);
    for (int i = 1; i < count_; ++i) pthread_join(workers_[i], nullptr);
    pthread_cond_destroy(&end_);
    pthread_cond_destroy(&begin_);
    pthread_mutex_destroy(&lock_);
  }

  int count() const { return count_; }

  // All tasks of a loop; more tasks than threads are taken in turn.
  int run(Task task, void *closure, int tasks) {
    pthread_mutex_lock(&lock_);
    task_ = task;
    closure_ = closure;
    tasks_ = tasks;
    next_ = 0;
    running_ = 0;
    failed_ = 0;
    ++loop_;
    if (tasks > 1) pthread_cond_broadcast(&begin_);
    take_all();
    while (running_ > 0) pthread_cond_wait(&end_, &lock_);
    task_ = nullptr;
    const int failed = failed_;
    pthread_mutex_unlock(&lock_);
    return failed;
  }

 private:
  static void *work(void *self);

  // With the lock held: run tasks until none is left.
  void take_all() {
    Group group = {nullptr, tasks_};
    while (task_ != nullptr && next_ < tasks_) {
      const int number = next_++;
      ++running_;
      const Task task = task_;
      void *closure = closure_;
      pthread_mutex_unlock(&lock_);
      const int status = task(number, &group, closure);
      pthread_mutex_lock(&lock_);
      if (status != 0) failed_ = status;
      if (--running_ == 0) pthread_cond_signal(&end_);
    }
  }

  pthread_mutex_t lock_;
  pthread_cond_t begin_, end_;
  pthread_t workers_[kMostThreads];
  int count_ = 1;
  bool stopping_ = false;
  Task task_ = nullptr;
  void *closure_ = nullptr;
  int tasks_ = 0, next_ = 0, running_ = 0, failed_ = 0;
  uint64_t loop_ = 0;
};

namespace {

// The threads of the model that runs on this thread; null on workers, whose own loops are not shared.
thread_local Threads *current = nullptr;

int available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return 1;
#elif defined(_WIN32)
  const char *count = getenv("NUMBER_OF_PROCESSORS");
  return count != nullptr && atoi(count) > 0 ? atoi(count) : 1;
#else
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? static_cast<int>(count) : 1;
#endif
}

// Workspaces that were freed on this thread, for the next kernel: the system's are slow to get.
struct Workspaces {
  static constexpr int kKept = 4;
  struct Header {
    size_t bytes;
  };
  Header *free[kKept];
};
thread_local Workspaces workspaces = {};

extern "C" {

int assay_parallel_launch(Task task, void *closure, int tasks) {
  if (current == nullptr) {
    const int count = tasks > 0 ? tasks : 1;
    Group group = {nullptr, count};
    for (int number = 0; number < count; ++number)
      if (task(number, &group, closure) != 0) return -1;
    return 0;
  }
  Threads *threads = current;
  current = nullptr;  // loops within the loop are not shared
  const int failed = threads->run(task, closure, tasks > 0 ? tasks : threads->count());
  current = threads;
  return failed;
}

void *assay_alloc_workspace(int, int, uint64_t bytes, int, int) {
  typedef Workspaces::Header Header;
  for (Header *&kept : workspaces.free) {
    if (kept == nullptr || kept->bytes < bytes || kept->bytes > 4 * bytes + 4096) continue;
    Header *found = kept;
    kept = nullptr;
    return reinterpret_cast<char *>(found) + kAlignment;
  }
  Header *made = static_cast<Header *>(allocate_aligned(bytes + kAlignment));
  made->bytes = bytes;
  return reinterpret_cast<char *>(made) + kAlignment;
}

int assay_free_workspace(int, int, void *memory) {
  typedef Workspaces::Header Header;
  Header *header = reinterpret_cast<Header *>(static_cast<char *>(memory) - kAlignment);
  for (Header *&kept : workspaces.free) {
    if (kept != nullptr) continue;
    kept = header;
    return 0;
  }
  // All places are taken: the smallest one makes room.
  Header **smallest = &workspaces.free[0];
  for (Header *&kept : workspaces.free)
    if (kept->bytes < (*smallest)->bytes) smallest = &kept;
  if ((*smallest)->bytes < header->bytes) {
    Header *larger = header;
    header = *smallest;
    *smallest = larger;
  }
  free_aligned(header);
  return 0;
}

void assay_raise(const char *kind, const char **parts, int32_t count) {
  pthread_mutex_lock(&error_lock);
  snprintf(error_text, sizeof error_text, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i)
    strncat(error_text, parts[i], sizeof error_text - strlen(error_text) - 1);
  pthread_mutex_unlock(&error_lock);
}

}  // extern "C"

// One line of the table of C's mathematics, for float64 and float32.
#define ASSAY_MATH_1(name)                                                    \
  {#name, reinterpret_cast<void *>(static_cast<double (*)(double)>(::name))}, \
      {#name "f", reinterpret_cast<void *>(static_cast<float (*)(float)>(::name##f))}
#define ASSAY_MATH_2(name)                                                            \
  {#name, reinterpret_cast<void *>(static_cast<double (*)(double, double)>(::name))}, \
      {#name "f", reinterpret_cast<void *>(static_cast<float (*)(float, float)>(::name##f))}

struct Symbol {
  const char *name;
  void *address;
};

const Symbol kSymbols[] = {
    {"TVMBackendParallelLaunch", reinterpret_cast<void *>(assay_parallel_launch)},
    {"TVMBackendAllocWorkspace", reinterpret_cast<void *>(assay_alloc_workspace)},
    {"TVMBackendFreeWorkspace", reinterpret_cast<void *>(assay_free_workspace)},
    {"TVMFFIErrorSetRaisedFromCStrParts", reinterpret_cast<void *>(assay_raise)},
    {"memcpy", reinterpret_cast<void *>(memcpy)},
    {"memmove", reinterpret_cast<void *>(memmove)},
    {"memset", reinterpret_cast<void *>(memset)},
    ASSAY_MATH_1(acos),  ASSAY_MATH_1(acosh), ASSAY_MATH_1(asin),  ASSAY_MATH_1(asinh), ASSAY_MATH_1(atan),
    ASSAY_MATH_1(atanh), ASSAY_MATH_1(ceil),  ASSAY_MATH_1(cos),   ASSAY_MATH_1(cosh),  ASSAY_MATH_1(erf),
    ASSAY_MATH_1(exp),   ASSAY_MATH_1(exp2),  ASSAY_MATH_1(expm1), ASSAY_MATH_1(floor), ASSAY_MATH_1(log),
    ASSAY_MATH_1(log10), ASSAY_MATH_1(log1p), ASSAY_MATH_1(log2),  ASSAY_MATH_1(nearbyint),
    ASSAY_MATH_1(rint),  ASSAY_MATH_1(round), ASSAY_MATH_1(sin),   ASSAY_MATH_1(sinh),  ASSAY_MATH_1(sqrt),
    ASSAY_MATH_1(tan),   ASSAY_MATH_1(tanh),  ASSAY_MATH_1(trunc), ASSAY_MATH_2(atan2), ASSAY_MATH_2(fmax),
    ASSAY_MATH_2(fmin),  ASSAY_MATH_2(fmod),  ASSAY_MATH_2(hypot), ASSAY_MATH_2(pow),
    {"lrint", reinterpret_cast<void *>(static_cast<long (*)(double)>(::lrint))},
    {"lrintf", reinterpret_cast<void *>(static_cast<long (*)(float)>(::lrintf))},
};

}  // namespace

void *Threads::work(void *self) {
  Threads *threads = static_cast<Threads *>(self);
  uint64_t seen = 0;
  pthread_mutex_lock(&threads->lock_);
  while (!threads->stopping_) {
    if (threads->loop_ == seen) {
      pthread_cond_wait(&threads->begin_, &threads->lock_);
      continue;
    }
    seen = threads->loop_;
    threads->take_all();
  }
  pthread_mutex_unlock(&threads->lock_);
  return nullptr;
}

void *backend_symbol(const char *name) {
  for (const Symbol &each : kSymbols)
    if (strcmp(each.name, name) == 0) return each.address;
  return nullptr;
}

void *context_symbol(const char *name) {
  return strncmp(name, "__TVM", 5) == 0 ? backend_symbol(name + 2) : nullptr;
}

Threads *start_threads(int count) {
  Threads *threads = static_cast<Threads *>(checked(malloc(sizeof(Threads))));
  construct(threads);
  threads->start(count > 0 ? count : available_cpus());
  return threads;
}

void stop_threads(Threads *threads) {
  if (threads == nullptr) return;
  threads->stop();
  free(threads);
}

UseThreads::UseThreads(Threads *threads) { current = threads; }

UseThreads::~UseThreads() { current = nullptr; }

const char *raised_error() { return error_text; }

}  // namespace assay
