#include "cpu.h"

#include <string.h>
#if defined(__linux__) && !defined(__x86_64__)
#include <sys/auxv.h>
#endif

namespace assay {

const char *machine_name() {
#if defined(__aarch64__)
  return "aarch64";
#elif defined(__riscv)
  return "riscv64";
#else
  return "x86_64";
#endif
}

const char *system_name() {
#if defined(__APPLE__)
  return "macos";
#elif defined(_WIN32)
  return "windows";
#else
  return "linux";
#endif
}

#if defined(__x86_64__)

bool cpu_has(const char *feature) {
  __builtin_cpu_init();
#define ASSAY_HAS(linux_name, name) \
  if (strcmp(feature, linux_name) == 0) return __builtin_cpu_supports(name)
  ASSAY_HAS("sse4_1", "sse4.1");
  ASSAY_HAS("sse4_2", "sse4.2");
  ASSAY_HAS("ssse3", "ssse3");
  ASSAY_HAS("popcnt", "popcnt");
  ASSAY_HAS("avx", "avx");
  ASSAY_HAS("avx2", "avx2");
  ASSAY_HAS("fma", "fma");
  ASSAY_HAS("bmi1", "bmi");
  ASSAY_HAS("bmi2", "bmi2");
  ASSAY_HAS("avx512f", "avx512f");
  ASSAY_HAS("avx512bw", "avx512bw");
  ASSAY_HAS("avx512cd", "avx512cd");
  ASSAY_HAS("avx512dq", "avx512dq");
  ASSAY_HAS("avx512vl", "avx512vl");
  ASSAY_HAS("avx512_vnni", "avx512vnni");
#undef ASSAY_HAS
  // Every CPU with AVX2 has these (x86-64 psABI, level v3), and every one with SSE4.2 those of level v2.
  const char *const third[] = {"abm", "f16c", "movbe", "xsave"};
  for (const char *each : third)
    if (strcmp(feature, each) == 0) return __builtin_cpu_supports("avx2");
  const char *const second[] = {"cx16", "lahf_lm", "pni"};
  for (const char *each : second)
    if (strcmp(feature, each) == 0) return __builtin_cpu_supports("sse4.2");
  return false;
}

#elif defined(__linux__)

namespace {
struct Bit {
  const char *feature;
  unsigned long type;
  int bit;
};
// Linux's asm/hwcap.h of each machine.
const Bit kBits[] = {
#if defined(__aarch64__)
    {"asimd", AT_HWCAP, 1},   {"asimdhp", AT_HWCAP, 10}, {"asimddp", AT_HWCAP, 20},
    {"i8mm", AT_HWCAP2, 13},  {"bf16", AT_HWCAP2, 14},
#else
    {"i", AT_HWCAP, 'i' - 'a'}, {"m", AT_HWCAP, 'm' - 'a'}, {"a", AT_HWCAP, 'a' - 'a'}, {"f", AT_HWCAP, 'f' - 'a'},
    {"d", AT_HWCAP, 'd' - 'a'}, {"c", AT_HWCAP, 'c' - 'a'}, {"v", AT_HWCAP, 'v' - 'a'},
#endif
};
}  // namespace

bool cpu_has(const char *feature) {
  for (const Bit &each : kBits)
    if (strcmp(each.feature, feature) == 0) return (getauxval(each.type) >> each.bit & 1) != 0;
  return false;
}

#else

// Every Mac with an ARM CPU has what the levels up to apple-m1 need.
bool cpu_has(const char *feature) { return strcmp(feature, "asimd") == 0 || strcmp(feature, "asimddp") == 0; }

#endif

}  // namespace assay
