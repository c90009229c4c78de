// Whether this machine can run a level of an artifact.
#ifndef ASSAY_CPU_H_
#define ASSAY_CPU_H_

namespace assay {

// The machine that this program was compiled for, as the first part of a triple says it.
const char *machine_name();

// The system that this program was compiled for, as a triple says it.
const char *system_name();

// Whether the CPU has a feature of a manifest's target, by Linux's name for it.
bool cpu_has(const char *feature);

}  // namespace assay

#endif
