#include "cpu.h"

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
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

namespace {
// Where CPUID (Intel SDM, volume 2A) has a feature, and which registers the system must save for it.
struct Bit {
  const char *feature;
  uint32_t leaf;
  int word, bit;  // word: of EAX, EBX, ECX, EDX
  uint64_t saved;
};
constexpr uint64_t kPlain = 0, kYmm = 0x6, kZmm = 0xe6;
const Bit kBits[] = {
    {"pni", 1, 2, 0, kPlain},      {"ssse3", 1, 2, 9, kPlain},   {"fma", 1, 2, 12, kYmm},
    {"cx16", 1, 2, 13, kPlain},    {"sse4_1", 1, 2, 19, kPlain}, {"sse4_2", 1, 2, 20, kPlain},
    {"movbe", 1, 2, 22, kPlain},   {"popcnt", 1, 2, 23, kPlain}, {"xsave", 1, 2, 26, kPlain},
    {"avx", 1, 2, 28, kYmm},       {"f16c", 1, 2, 29, kYmm},     {"bmi1", 7, 1, 3, kPlain},
    {"avx2", 7, 1, 5, kYmm},       {"bmi2", 7, 1, 8, kPlain},    {"avx512f", 7, 1, 16, kZmm},
    {"avx512dq", 7, 1, 17, kZmm},  {"avx512cd", 7, 1, 28, kZmm}, {"avx512bw", 7, 1, 30, kZmm},
    {"avx512vl", 7, 1, 31, kZmm},  {"avx512_vnni", 7, 2, 11, kZmm},
    {"lahf_lm", 0x80000001, 2, 0, kPlain}, {"abm", 0x80000001, 2, 5, kPlain},
};
constexpr int kOsxsave = 27;

uint64_t saved_registers() {
  uint32_t words[4];
  if (!__get_cpuid(1, &words[0], &words[1], &words[2], &words[3]) || !(words[2] >> kOsxsave & 1)) return 0;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}
}  // namespace

bool cpu_has(const char *feature) {
  for (const Bit &each : kBits) {
    if (strcmp(each.feature, feature) != 0) continue;
    uint32_t words[4];
    return __get_cpuid_count(each.leaf, 0, &words[0], &words[1], &words[2], &words[3]) != 0 &&
           (words[each.word] >> each.bit & 1) != 0 && (saved_registers() & each.saved) == each.saved;
  }
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

#elif defined(__APPLE__)

namespace {
struct Name {
  const char *feature, *sysctl;  // Apple's "Determining instruction set characteristics"
};
const Name kNames[] = {
    {"asimd", "hw.optional.AdvSIMD"},         {"asimdhp", "hw.optional.arm.FEAT_FP16"},
    {"asimddp", "hw.optional.arm.FEAT_DotProd"}, {"i8mm", "hw.optional.arm.FEAT_I8MM"},
    {"bf16", "hw.optional.arm.FEAT_BF16"},
};
}  // namespace

bool cpu_has(const char *feature) {
  if (strcmp(feature, "asimd") == 0) return true;  // of every Mac, and old systems do not list it
  for (const Name &each : kNames) {
    int value = 0;
    size_t size = sizeof value;
    if (strcmp(each.feature, feature) == 0)
      return sysctlbyname(each.sysctl, &value, &size, nullptr, 0) == 0 && value != 0;
  }
  return false;
}

#else
#error "no features of CPUs are known for this system"
#endif

}  // namespace assay
