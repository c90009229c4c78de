// Arrays in files of NumPy's format (numpy.lib.format, version 1).
#ifndef ASSAY_NPY_H_
#define ASSAY_NPY_H_

#include "assay.h"
#include "support.h"

namespace assay {

// The array in a file; its data are in `memory`.
bool read_npy(const char *path, Memory &memory, assay_tensor &tensor);
bool write_npy(const char *path, const assay_tensor &tensor);

}  // namespace assay

#endif
