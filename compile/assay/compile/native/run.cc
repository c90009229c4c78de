// assay-run: run a compiled model on arrays in .npy files.
#include <stdlib.h>
#include <time.h>

#include "assay.h"
#include "npy.h"
#include "support.h"

using namespace assay;

namespace {

constexpr int kFailed = 1, kUsage = 2;
constexpr int kMostInputs = 1024;

const char kHelp[] =
    "usage: assay-run FOLDER [--threads N] [--repeat N] [--output FOLDER] INPUT.npy ...\n"
    "Run the model in FOLDER on one file for each input, in order; without files, say what it takes.\n"
    "  --threads N      threads of a run (default: one on each CPU)\n"
    "  --repeat N       run N times, and print the least and the mean time\n"
    "  --output FOLDER  write outputs to FOLDER/0.npy, 1.npy and so on; inputs that the model writes, such\n"
    "                   as the cache of a decoder, go back to their files\n";

double seconds() {
  timespec now;
  timespec_get(&now, TIME_UTC);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void print_tensor(const char *name, const assay_tensor &tensor) {
  printf("%s %s[", name, tensor.dtype);
  for (int axis = 0; axis < tensor.rank; ++axis)
    printf("%s%lld", axis ? "," : "", static_cast<long long>(tensor.shape[axis]));
  printf("]\n");
}

int describe(const assay_model *model) {
  for (int i = 0; i < assay_input_count(model); ++i) {
    assay_tensor tensor = {};
    tensor.dtype = assay_input_dtype(model, i);
    tensor.rank = assay_input_shape(model, i, tensor.shape);
    print_tensor(assay_input_name(model, i), tensor);
  }
  return 0;
}

struct Options {
  const char *folder = nullptr, *output = nullptr;
  int threads = 0, repeat = 1;
  const char *inputs[kMostInputs];
  int input_count = 0;
};

bool parse(int count, char **words, Options &options) {
  for (int i = 1; i < count; ++i) {
    const char *word = words[i];
    const bool known = strcmp(word, "--threads") == 0 || strcmp(word, "--repeat") == 0 || strcmp(word, "--output") == 0;
    if (known && i + 1 < count) {
      const char *value = words[++i];
      if (word[2] == 'o')
        options.output = value;
      else if ((word[2] == 't' ? options.threads : options.repeat) = atoi(value); atoi(value) < 1)
        return fail("%s takes a number from 1.", word);
    } else if (word[0] == '-') {
      return fail("%s", kHelp);
    } else if (options.folder == nullptr) {
      options.folder = word;
    } else if (options.input_count < kMostInputs) {
      options.inputs[options.input_count++] = word;
    }
  }
  return options.folder != nullptr || fail("%s", kHelp);
}

int failed(int status = kFailed) {
  fprintf(stderr, "%s\n", assay_error());
  return status;
}

int write_outputs(const Options &options, const assay_model *model, const assay_tensor *inputs,
                  const assay_tensor *outputs) {
  for (int i = 0; i < assay_output_count(model); ++i) {
    char name[32];
    snprintf(name, sizeof name, "%d.npy", i);
    if (!write_npy(Path(options.output, name).text(), outputs[i])) return failed();
  }
  for (int i = 0; i < options.input_count; ++i)
    if (assay_input_is_written(model, i) && !write_npy(options.inputs[i], inputs[i])) return failed();
  return 0;
}

int run(const Options &options, assay_model *model) {
  if (options.input_count == 0) return describe(model);
  if (options.input_count != assay_input_count(model)) {
    fail("The model takes %d inputs, not %d.", assay_input_count(model), options.input_count);
    return failed(kUsage);
  }
  Array<Memory *> memories;
  Array<assay_tensor> inputs, outputs;
  for (int i = 0; i < options.input_count; ++i) {
    memories.push(construct(static_cast<Memory *>(checked(malloc(sizeof(Memory))))));
    assay_tensor tensor = {};
    if (!read_npy(options.inputs[i], *memories[static_cast<size_t>(i)], tensor)) return failed();
    inputs.push(tensor);
  }
  outputs.fill(static_cast<size_t>(assay_output_count(model)), assay_tensor());
  double least = 0, total = 0;
  for (int i = 0; i < options.repeat; ++i) {
    const double start = seconds();
    if (assay_run(model, inputs.begin(), outputs.begin()) != 0) return failed();
    const double taken = seconds() - start;
    least = i == 0 || taken < least ? taken : least;
    total += taken;
  }
  for (int i = 0; i < assay_output_count(model); ++i) print_tensor(assay_output_name(model, i), outputs[static_cast<size_t>(i)]);
  printf("least %.6f s, mean %.6f s, of %d\n", least, total / options.repeat, options.repeat);
  return options.output == nullptr ? 0 : write_outputs(options, model, inputs.begin(), outputs.begin());
}

}  // namespace

int main(int count, char **words) {
  Options options;
  if (!parse(count, words, options)) return failed(kUsage);
  assay_model *model = assay_open(options.folder, options.threads);
  if (model == nullptr) return failed();
  const int status = run(options, model);
  assay_close(model);
  return status;
}
