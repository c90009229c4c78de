/* Runs one compiled model from C, or from anything that calls C. docs/bundle.md says how.

   Every function that can fail returns NULL or a negative number, and assay_error() then gives one sentence
   of what is wrong. A model may be used by one thread at a time. */
#ifndef ASSAY_H_
#define ASSAY_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) && defined(ASSAY_LIBRARY)
#define ASSAY_API __declspec(dllexport)
#elif defined(_WIN32)
#define ASSAY_API
#else
#define ASSAY_API __attribute__((visibility("default")))
#endif

#define ASSAY_MAX_RANK 8

typedef struct assay_model assay_model;

/* A dense row-major tensor. dtype is bool, int8, uint8, int16, uint16, float16, int32, uint32, float32,
   int64, uint64 or float64. */
typedef struct {
  void *data;
  const char *dtype;
  int32_t rank;
  int64_t shape[ASSAY_MAX_RANK];
} assay_tensor;

/* What the last function of this thread that failed has to say. */
ASSAY_API const char *assay_error(void);

/* The model in a folder: of an artifact, or of a bundle that holds one in model/. threads: 0 for one on each
   CPU that the process may use. */
ASSAY_API assay_model *assay_open(const char *folder, int32_t threads);
ASSAY_API void assay_close(assay_model *model);

ASSAY_API int32_t assay_input_count(const assay_model *model);
ASSAY_API int32_t assay_output_count(const assay_model *model);

/* Name, dtype and shape of an input or output by number, NULL where there is none. Of a dimension that is
   given at run time, assay_input_shape has -1. An output has the shape of the last run. */
ASSAY_API const char *assay_input_name(const assay_model *model, int32_t index);
ASSAY_API const char *assay_input_dtype(const assay_model *model, int32_t index);
ASSAY_API int32_t assay_input_shape(const assay_model *model, int32_t index, int64_t *shape);
ASSAY_API const char *assay_output_name(const assay_model *model, int32_t index);

/* 1 where the model writes into the input (the cache of a decoder), which must then be 64-byte aligned. */
ASSAY_API int32_t assay_input_is_written(const assay_model *model, int32_t index);

/* Run on as many inputs as the model has; outputs has room for as many as it has. Their data belong to the
   model, until its next run. Returns 0, or -1. */
ASSAY_API int32_t assay_run(assay_model *model, const assay_tensor *inputs, assay_tensor *outputs);

#ifdef __cplusplus
}
#endif

#endif
